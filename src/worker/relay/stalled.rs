//! Pipes are few, and a stalled sink keeps its pipe for as long as it likes. When a stream finds none, the pipes of
//! stalled sinks are emptied into buffers, longest stalled first, and given to streams that can use them.
//!
//! The memory of a stalled session is bounded: one fill of at most `PIPE_LEN_MAX` per direction, and far less as soon
//! as its worker holds many such (`buffers.rs`), or its sink has stalled before.

use std::time::Duration;

use crate::session::CloseReason;
use crate::sys::Kernel;
use crate::worker::core::Core;
use crate::worker::relay::Relay;
use crate::worker::relay::lent::Borrower;

/// A sink that has accepted nothing for this long has stalled. With a shorter time, slow streams would take each
/// other's pipes: each move costs a copy of the pipe's content.
const STALL: Duration = Duration::from_secs(1);
/// Most bytes moved per turn; the pipe that exceeds it is the last. The others follow in the next turns, as they are
/// wanted.
const BYTES_PER_TURN: usize = 1 << 20;

impl<K: Kernel> Relay<K> {
    /// Reclaims as many pipes as fills of this turn lacked, as far as their sinks have stalled.
    pub(in crate::worker) fn reclaim_pipes(&mut self, core: &mut Core<K>) {
        let wanted = self.buffers.pipes.take_wanted();
        let mut moved = 0;
        for _ in 0..wanted {
            let Some((borrower, since)) = self.buffers.pipes.longest_lent() else { return };
            if core.now - since < STALL || moved >= BYTES_PER_TURN {
                return;
            }
            moved += self.reclaim_from(core, borrower);
        }
    }

    fn reclaim_from(&mut self, core: &mut Core<K>, (key, direction): Borrower) -> usize {
        let Some(slot) = self.sessions.get_mut(key) else {
            debug_assert!(false, "close gives pipes back");
            return 0;
        };
        match slot.conduits[direction as usize].leave_pipe(&mut core.kernel, &mut self.buffers) {
            Ok(bytes) => {
                core.stats.pipes_reclaimed.add(1);
                bytes
            }
            Err(error) => {
                log::error!(error:%; "a pipe does not return what it holds");
                self.cut(core, key, CloseReason::LocalLimit);
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::worker::test_worker::Bench;

    /// More than the sockets of a session hold.
    const STREAM_LEN: usize = 32 << 20;
    const CHUNK: usize = 256 << 10;

    /// Sends to a client that does not read until no socket accepts more.
    fn fill_up(bench: &mut Bench, served: &mut TcpStream, sent: &mut usize) {
        served.set_nonblocking(true).unwrap();
        let mut refusals = 0;
        while refusals < 200 {
            match served.write(&pattern(*sent)[..CHUNK]) {
                Ok(bytes) => {
                    *sent += bytes;
                    refusals = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => refusals += 1,
                Err(error) => panic!("{error}"),
            }
            bench.turn_at_once();
        }
    }

    /// Bytes that encode their position, from `start` on.
    fn pattern(start: usize) -> Vec<u8> {
        (start..start + CHUNK).map(|place| (place / 7 % 251).to_le_bytes()[0]).collect()
    }

    fn expect_stream(bench: &mut Bench, client: &mut TcpStream, received: &mut usize, until: usize) {
        client.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; CHUNK];
        while *received < until {
            let len = CHUNK.min(until - *received);
            match client.read(&mut buffer[..len]) {
                Ok(bytes) => {
                    assert!(bytes > 0, "an end");
                    assert!(
                        buffer[..bytes] == pattern(*received)[..bytes],
                        "bytes out of place behind {received}"
                    );
                    *received += bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => bench.turn_at_once(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// 200 clients that did not read made every other stream copy, until their idle timeout.
    #[test]
    fn a_stream_gets_the_pipe_of_a_reader_that_has_stalled_and_no_byte_is_lost() {
        let mut bench = Bench::with_pipes("relay = \"splice\"\nretries = 1", 1);
        let (mut stuck, mut to_stuck) = bench.session();
        let mut sent = 0;
        fill_up(&mut bench, &mut to_stuck, &mut sent);
        assert_eq!(bench.worker.relay.buffers.pipes.lent(), 1, "the stuck one has it");
        let held = bench.worker.audit().held[1];
        assert!((1..=1 << 20).contains(&held), "{held} bytes held");

        let (mut reading, mut to_reading) = bench.session();
        let stalled = bench.worker.core.now + STALL;
        bench.turn_until(|worker| worker.core.now >= stalled);
        let (mut given, mut received) = (0, 0);
        to_reading.set_nonblocking(true).unwrap();
        while given < STREAM_LEN {
            match to_reading.write(&pattern(given)) {
                Ok(bytes) => given += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            bench.turn_at_once();
            let until = given.saturating_sub(CHUNK);
            expect_stream(&mut bench, &mut reading, &mut received, until);
        }
        expect_stream(&mut bench, &mut reading, &mut received, given);
        assert_eq!(bench.worker.core.stats.pipes_reclaimed.get(), 1);
        assert_eq!(bench.worker.relay.buffers.buffers.parked(), 1, "what was in the pipe is in a buffer");
        assert_eq!(bench.worker.audit().held[1], held, "as much as before");

        // It continues where it stopped, and from now on gets little at a time.
        let mut received = 0;
        expect_stream(&mut bench, &mut stuck, &mut received, sent);
        fill_up(&mut bench, &mut to_stuck, &mut sent);
        let held = bench.worker.audit().held[1];
        assert!((1..=64 << 10).contains(&held), "{held} bytes held by a sink that has stalled before");
        expect_stream(&mut bench, &mut stuck, &mut received, sent);
    }
}
