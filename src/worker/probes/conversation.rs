//! A conversation of `health` over its socket: what checks and agents have in common.

use std::io;
use std::time::Duration;

use super::queue::Pace;
use crate::health::{Conversation, Step};
use crate::sys::{Dial, DialSpec, Kernel, Token, lacks_resources};

/// Most bytes per read of an answer.
pub(super) const READ_LEN: usize = 2048;
/// Reads after the result of a check: a backend that never stops sending is reset.
pub(super) const READS_AFTER_RESULT: usize = 16;
/// A conversation that has held its place for this part of the timeout, or longer, was slow.
const SLOW_PART: u32 = 2;

/// Returns a socket that dials, and whose events have that token.
pub(in crate::worker) fn dial<K: Kernel>(
    kernel: &mut K,
    spec: &DialSpec<'_>,
    token: Token,
) -> io::Result<K::Socket> {
    let socket = kernel.dial(spec)?;
    kernel.watch(&socket, token)?;
    Ok(socket)
}

/// Reports the result of the dial, if the conversation waits for it. Returns whether it may continue. Fails with a lack
/// of resources here, which the conversation must not be charged with.
pub(in crate::worker) fn report_dial<K: Kernel>(
    kernel: &mut K,
    socket: &K::Socket,
    conversation: &mut impl Conversation,
) -> io::Result<bool> {
    if conversation.next_step() != Step::Dial {
        return Ok(true);
    }
    match kernel.dial_result(socket) {
        Dial::Pending => return Ok(false),
        // Bytes sent before a reset are an answer.
        Dial::Connected | Dial::Lost(_) => conversation.on_connected(),
        Dial::ToItself => conversation.on_self_connect(),
        Dial::Failed(error) if lacks_resources(&error) => return Err(error),
        Dial::Failed(error) => conversation.on_failed(error.kind()),
    }
    Ok(true)
}

/// Runs the steps of the conversation until it waits or has its result. Returns whether it has.
pub(in crate::worker) fn converse<K: Kernel>(
    kernel: &mut K,
    socket: &K::Socket,
    conversation: &mut impl Conversation,
) -> bool {
    let mut buffer = [0; READ_LEN];
    // Each round sends or receives at least a byte, and a conversation is decided by at most 96 KiB.
    loop {
        let talked = match conversation.next_step() {
            Step::Dial => return false,
            Step::Finished(_) => return true,
            Step::Send(bytes) => kernel.write(socket, bytes).map(|sent| conversation.on_sent(sent)),
            Step::Receive => kernel.read(socket, &mut buffer).map(|read| match read {
                0 => conversation.on_eof(),
                _ => conversation.on_received(&buffer[..read]),
            }),
        };
        match talked {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => conversation.on_failed(error.kind()),
        }
    }
}

/// Returns the pace of a conversation that has held its place for so long, of at most `timeout`.
pub(in crate::worker) fn pace_of(held: Duration, timeout: Duration) -> Pace {
    if held >= timeout / SLOW_PART { Pace::Slow } else { Pace::Prompt }
}

/// Returns the index in timers and tokens of a place in a slab.
pub(in crate::worker) fn index_of(place: usize) -> u32 {
    u32::try_from(place).expect("fewer than 2^32 backends")
}
