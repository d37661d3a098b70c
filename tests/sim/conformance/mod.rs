//! Compares the simulated kernel with the one of this machine: one set of scripts that runs over both. The result of
//! each call and each event is a line of a transcript, and both transcripts must equal the one that stands next to the
//! script.
//!
//! A [`Bench`] is a kernel with its surroundings: listeners, backends and peers that follow a script. Counts that
//! depend on how Linux cuts and joins segments are left out; only their bounds are recorded.

mod linux;
mod script;
mod sim;

mod dials;
mod listeners;
mod pipes;
mod resets;
mod streams;

use std::net::SocketAddr;

use l4lb::sys::{Event, Kernel};

/// A socket as a kernel has it.
type Socket<B> = <<B as Bench>::K as Kernel>::Socket;
/// A listening socket as a kernel has it.
type Listener<B> = <<B as Bench>::K as Kernel>::Listener;

/// The application at the far end of a connection, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer(usize);

/// One of our connections and its far end.
struct Link<S> {
    socket: S,
    peer: Peer,
}

/// The behaviour of a dialed backend.
#[derive(Clone, Copy, Debug)]
enum Backend {
    /// It accepts.
    Listening,
    /// Nothing listens.
    Closed,
    /// Its accept queue is full.
    Full,
}

/// How the stream to a peer came to its end, and behind how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Fin { behind: usize },
    Reset { behind: usize },
}

/// See the module. The effect of a peer's action has reached our kernel when the verb returns.
trait Bench {
    /// The kernel on the bench.
    type K: Kernel;

    fn kernel(&mut self) -> &mut Self::K;
    /// Packets in flight arrive.
    fn pass(&mut self);
    /// Returns the next events; none if nothing happens.
    fn await_events(&mut self) -> Vec<Event>;
    /// Returns the events of a time in which nothing should happen.
    fn await_silence(&mut self) -> Vec<Event>;
    /// Waits until the peer's kernel has everything written to `socket`.
    fn await_acks(&mut self, socket: &Socket<Self>);

    /// A listener of that port; of the second one on, they share it.
    fn listen(&mut self, port: usize) -> Listener<Self>;
    /// A client connects, and is in the accept queue.
    fn connect(&mut self, port: usize) -> Peer;
    /// The client that [`Kernel::accept`] says is at `address`.
    fn client_at(&self, address: SocketAddr) -> Peer;
    /// A client in an accept queue sends that many bytes and resets.
    fn reset_queued(&mut self, peer: Peer, bytes: usize);

    /// Where to dial such a backend.
    fn backend(&mut self, backend: Backend) -> SocketAddr;
    /// The far end of the last dial to a backend that listens.
    fn dialed(&mut self) -> Peer;
    /// A socket that is connected to itself.
    fn dial_itself(&mut self) -> Socket<Self>;

    /// The peer sends that many bytes at once.
    fn send(&mut self, link: &Link<Socket<Self>>, bytes: usize);
    /// The peer sends that many bytes to a connection that we have given back, and is reset.
    fn send_to_closed(&mut self, peer: Peer, bytes: usize);
    /// The peer reads exactly that many bytes.
    fn receive(&mut self, peer: Peer, bytes: usize);
    /// The peer reads to the end of its stream.
    fn receive_end(&mut self, peer: Peer) -> Ending;
    /// Returns whether the peer has seen no end, and has nothing to read.
    fn is_silent(&mut self, peer: Peer) -> bool;
    /// The peer ends its stream.
    fn fin(&mut self, link: &Link<Socket<Self>>);
    /// The peer resets.
    fn reset(&mut self, link: &Link<Socket<Self>>);
    /// The peer closes, whether it has read everything or not.
    fn close(&mut self, link: &Link<Socket<Self>>);

    /// No descriptor is left, until one is given back.
    fn exhaust_descriptors(&mut self);
}

/// A test of one script: both kernels, and the expected transcript.
macro_rules! agree {
    ($name:ident, $script:ident, $expected:expr) => {
        #[test]
        fn $name() {
            use crate::conformance::{linux::LinuxBench, script::Script, sim::SimBench};
            let expected: &[&str] = &$expected;
            let linux = $script(Script::new(&mut LinuxBench::new()));
            assert_eq!(linux, expected, "Linux");
            let simulated = $script(Script::new(&mut SimBench::new()));
            assert_eq!(simulated, expected, "simulated");
        }
    };
}
use agree;
