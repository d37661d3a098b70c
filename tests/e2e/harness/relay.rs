//! One session through the server, as a script: who does what, and what the other must see of it.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use l4lb::session::{CloseReason, Side};

use crate::harness::lab::Lab;
use crate::harness::peer::{Ending, Peer, until};

/// One session: a client, a backend, and the lab `L` that they are in.
pub(crate) struct Relay<L = Lab> {
    lab: L,
    /// By [`Side`].
    peers: [Peer; 2],
}

impl<L> Relay<L> {
    pub(crate) fn new(lab: L, client: Peer, backend: Peer) -> Self {
        Self { lab, peers: [client, backend] }
    }

    pub(crate) fn lab(&self) -> &L {
        &self.lab
    }

    pub(crate) fn peer(&mut self, side: Side) -> &mut Peer {
        &mut self.peers[side as usize]
    }

    pub(crate) fn peers(&mut self) -> &mut [Peer; 2] {
        &mut self.peers
    }

    /// Both ends, `near` first.
    pub(crate) fn ends_from(&mut self, near: Side) -> (&mut Peer, &mut Peer) {
        let [client, backend] = &mut self.peers;
        match near {
            Side::Client => (client, backend),
            Side::Backend => (backend, client),
        }
    }

    #[track_caller]
    pub(crate) fn sends(mut self, side: Side, bytes: &[u8]) -> Self {
        self.peer(side).sending().bytes(bytes);
        self
    }

    #[track_caller]
    pub(crate) fn sends_urgent(mut self, side: Side, byte: u8) -> Self {
        self.peer(side).sending().urgent(byte);
        self
    }

    #[track_caller]
    pub(crate) fn expects(mut self, side: Side, bytes: &[u8]) -> Self {
        self.peer(side).receiving().bytes(bytes);
        self
    }

    /// Sees to it that the server knows both connections: until it does, a client that resets is gone, and a
    /// backend that resets has not been reached.
    #[track_caller]
    pub(crate) fn established(self) -> Self {
        self.sends(Side::Client, b"hello").expects(Side::Backend, b"hello")
    }

    /// So many bytes of its pattern, which must fit into buffers.
    #[track_caller]
    pub(crate) fn streams(mut self, side: Side, bytes: u64) -> Self {
        self.peer(side).sending().stream(bytes);
        self
    }

    #[track_caller]
    pub(crate) fn expects_stream(mut self, side: Side, bytes: u64) -> Self {
        self.peer(side).receiving().stream(bytes);
        self
    }

    /// So many bytes of its pattern, while the other side reads them.
    #[track_caller]
    pub(crate) fn carries(mut self, near: Side, bytes: u64) -> Self {
        let (near, far) = self.ends_from(near);
        thread::scope(|scope| {
            scope.spawn(|| near.sending().stream(bytes));
            far.receiving().stream(bytes);
        });
        self
    }

    /// So many bytes each way at the same time.
    pub(crate) fn carries_both_ways(mut self, bytes: u64) -> Self {
        let [client, backend] = &mut self.peers;
        let ((mut request, mut response), (mut answer, mut question)) = (client.halves(), backend.halves());
        thread::scope(|scope| {
            scope.spawn(|| request.stream(bytes));
            scope.spawn(|| answer.stream(bytes));
            scope.spawn(|| question.stream(bytes));
            response.stream(bytes);
        });
        self
    }

    /// Sends until nothing fits any more: the other side does not read.
    #[track_caller]
    pub(crate) fn fills_up(mut self, side: Side) -> Self {
        self.peer(side).sending().until_blocked();
        self
    }

    /// Sends until its connection breaks, which must be by a reset.
    #[track_caller]
    pub(crate) fn sends_until_reset(mut self, side: Side) -> Self {
        assert_eq!(self.peer(side).sending().until_error(), ErrorKind::ConnectionReset, "{side:?}");
        self
    }

    /// Reads everything that the other side has sent.
    #[track_caller]
    pub(crate) fn catches_up(mut self, side: Side) -> Self {
        let (far, near) = self.ends_from(side);
        let missing = near.sent() - far.received();
        far.receiving().stream(missing);
        self
    }

    /// Waits until the server's kernel has everything that this side has sent.
    #[track_caller]
    pub(crate) fn acknowledged(mut self, side: Side) -> Self {
        let peer = self.peer(side);
        until("all is acknowledged", || peer.acknowledged() == peer.sent());
        self
    }

    #[track_caller]
    pub(crate) fn fin(mut self, side: Side) -> Self {
        self.peer(side).fin();
        self
    }

    #[track_caller]
    pub(crate) fn expects_fin(self, side: Side) -> Self {
        self.expects_ending(side, Ending::Fin)
    }

    pub(crate) fn closes(mut self, side: Side) -> Self {
        self.peer(side).close();
        self
    }

    pub(crate) fn resets(mut self, side: Side) -> Self {
        self.peer(side).reset();
        self
    }

    #[track_caller]
    pub(crate) fn expects_reset(self, side: Side) -> Self {
        self.expects_ending(side, Ending::Reset)
    }

    /// A reset of a connection whose incoming stream has had its FIN: reads do not show it, writes get EPIPE.
    #[track_caller]
    pub(crate) fn expects_broken_pipe(mut self, side: Side) -> Self {
        let peer = self.peer(side);
        let mut error = None;
        until("the connection breaks", || {
            error = peer.take_error();
            error.is_some()
        });
        assert_eq!(error, Some(ErrorKind::BrokenPipe), "{side:?}");
        self
    }

    #[track_caller]
    pub(crate) fn expects_ending(mut self, side: Side, ending: Ending) -> Self {
        assert_eq!(self.peer(side).receiving().ending(), ending, "{side:?}");
        self
    }

    #[track_caller]
    pub(crate) fn expects_silence(mut self, side: Side, span: Duration) -> Self {
        self.peer(side).receiving().silence(span);
        self
    }

    /// Both sides end their streams, and see the other's end.
    #[track_caller]
    pub(crate) fn closes_both_ways(self) -> Self {
        let fins = self.fin(Side::Client).expects_fin(Side::Backend).fin(Side::Backend);
        fins.expects_fin(Side::Client)
    }
}

impl Relay {
    /// Waits until the session is over, while both peers are still there, and checks the server's books.
    #[track_caller]
    pub(crate) fn ends(self, reason: CloseReason) {
        let [client, backend] = &self.peers;
        let totals = self.lab.ends(&[(reason, 1)]);
        for (given, from, to) in [(totals.to_backend, client, backend), (totals.to_client, backend, client)] {
            if reason == CloseReason::Done {
                assert_eq!((given, given), (from.sent(), to.received()), "bytes given: {totals}");
            }
            assert!((to.received()..=from.sent()).contains(&given), "bytes given: {totals}");
        }
        let taken = totals.to_backend + totals.to_client + totals.discarded;
        assert!(taken <= client.sent() + backend.sent(), "bytes taken: {totals}");
    }
}

/// The reason for the end of a session that `side` has reset.
pub(crate) fn reset_by(side: Side) -> CloseReason {
    match side {
        Side::Client => CloseReason::ClientReset,
        Side::Backend => CloseReason::BackendReset,
    }
}
