//! Derives from acknowledgements whether a peer is still there and accepts the bytes sent to it.

use std::io;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use socket2::Socket;

use crate::sys::sockets::unacked;

/// A peer counts as silent after this many unanswered retransmissions or probes in a row. The last one may have been
/// sent a moment ago.
const UNANSWERED_MIN: u8 = 2;
/// TCP_CLOSE of tcp_states.h: undelivered bytes of a dead connection do not wait for anything.
const STATE_CLOSED: u8 = 7;

/// See [`Kernel::silence`](crate::sys::Kernel::silence).
///
/// TCP_USER_TIMEOUT would be the kernel's own measure, but it counts a closed receive window as silence: Linux ends the
/// connection of a reader that has paused for that long (tcp_probe_timer since 5.11; measured on 6.18), and the bytes
/// it has not read are lost. Each answer to a probe resets `probes`, so here such a reader is not silent.
pub(super) fn silence(socket: &Socket) -> io::Result<Option<Duration>> {
    let info = getsockopt(socket, TcpInfo)?;
    // Not `tcpi_unacked`: a closed window leaves nothing in flight, and right after it closes no probe has been sent
    // yet.
    let waiting = info.state != STATE_CLOSED && unacked(socket)? > 0;
    Ok(waiting.then(|| info.silence()))
}

/// See [`Kernel::delivery`](crate::sys::Kernel::delivery).
///
/// New bytes leave when the window of the peer moves on, and only then once more wait than fit; those that fit are
/// acknowledged a round trip later. So the last transmission of data shows when the peer last accepted some. Probes of
/// a closed window carry none, and their answers do not count: a stopped reader answers them for ever. When a peer
/// shrinks its window, the probes carry old data (tcp_retransmit_timer), and only the count shows progress.
pub(super) fn delivery(socket: &Socket) -> io::Result<(Duration, u32)> {
    let info = getsockopt(socket, TcpInfo)?;
    let unacked = if info.state == STATE_CLOSED { 0 } else { unacked(socket)? };
    Ok((info.since_delivery(), unacked))
}

impl TcpInfoHead {
    fn since_delivery(&self) -> Duration {
        let millis = match self.retransmits {
            0 => self.last_data_sent,
            // Old data, again and again.
            1.. => self.last_data_sent.max(self.last_ack_recv),
        };
        Duration::from_millis(millis.into())
    }

    fn silence(&self) -> Duration {
        let since_answer = Duration::from_millis(self.last_ack_recv.into());
        if self.retransmits >= UNANSWERED_MIN {
            // The last answer may be much older than the bytes that wait for one.
            since_answer.min(self.since_first_transmission())
        } else if self.probes >= UNANSWERED_MIN {
            since_answer
        } else {
            Duration::ZERO
        }
    }

    /// Returns how long the oldest segment has been unacknowledged. The kernel does not report that, but it doubles the
    /// wait before each retransmission: t, 2t, 4t … add up to the present wait, less t. It never waits longer than two
    /// minutes (TCP_RTO_MAX); beyond that the result is too short.
    fn since_first_transmission(&self) -> Duration {
        let now_waits = Duration::from_micros(self.rto.into());
        let waited_first = now_waits / 1u32.checked_shl(self.backoff.into()).unwrap_or(u32::MAX);
        now_waits - waited_first + Duration::from_millis(self.last_data_sent.into())
    }
}

sockopt_impl!(TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfoHead);

/// The first fields of `struct tcp_info` of linux/tcp.h; the kernel returns as many as are asked for.
#[repr(C)]
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the macro makes the option public")]
pub struct TcpInfoHead {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    window_scales: u8,
    delivery_rate: u8,
    /// Microseconds from the last transmission to the next retransmission.
    rto: u32,
    before_times: [u32; 8],
    /// Milliseconds since the last transmission of data, retransmissions included.
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    /// Milliseconds since the last acknowledgement.
    last_ack_recv: u32,
}
