//! The calls on pipes: pipe(2), splice(2), and read(2) of what is left in one.

use nix::libc;

use crate::conn::{Called, Push};
use crate::network::Net;
use crate::pipe::{PAGE, Pipe};
use crate::random::{happens, to_usize};

/// The requested capacity is divided by this after each denial (src/sys/pipe.rs).
const DENIED_STEP: usize = 4;
/// After a denial a worker that has closed no pipe asks for no other for this long (src/worker/relay/pipes.rs).
const DENIED_PAUSE: u64 = 1_000_000_000;

/// F_SETPIPE_SZ rounds up to a power of two of pages.
fn slots_of(capacity: usize) -> usize {
    capacity.div_ceil(PAGE).next_power_of_two()
}

impl Net {
    pub(crate) fn open_pipe(&mut self, worker: usize, capacity: usize, least: usize) -> Called<usize> {
        let denied = self.denied.remove(&worker);
        let is_patient = denied.is_none_or(|at| self.now >= at + DENIED_PAUSE);
        assert!(is_patient, "worker {worker} asks for a pipe again and again");
        let full = happens(&mut self.rng, self.faults.pipe) || self.descriptors() + 2 > self.faults.fds;
        let granted = if full { Err(libc::EMFILE) } else { self.grant_slots(capacity, least) };
        self.coverage.hit(match granted {
            Err(libc::EMFILE) => "pipe EMFILE",
            Err(_) => "pipe EPERM",
            Ok(slots) if slots < slots_of(capacity) => "pipe granted smaller",
            Ok(_) => "pipe granted",
        });
        self.coverage.hit_if(denied.is_some() && granted.is_ok(), "pipe granted behind a denial");
        if granted.is_err() {
            self.denied.insert(worker, self.now);
        }
        self.pipes.push(Pipe::new(granted?, worker));
        Ok(self.pipes.len() - 1)
    }

    /// Returns how much of `capacity` is left for this user, in steps down to `least`.
    fn grant_slots(&self, capacity: usize, least: usize) -> Called<usize> {
        let taken: usize = self.pipes.iter().filter(|pipe| pipe.is_open).map(Pipe::slots_max).sum();
        let left = self.faults.pipe_slots.saturating_sub(taken);
        let mut asked = capacity;
        while slots_of(asked) > left && asked > least {
            asked = least.max(asked / DENIED_STEP);
        }
        if slots_of(asked) > left { Err(libc::EPERM) } else { Ok(slots_of(asked)) }
    }

    pub(crate) fn splice_in(&mut self, id: usize, pipe: usize, len: usize) -> Called<usize> {
        let now = self.now;
        self.conn(id);
        if self.faults.splices_not {
            return self.reported("splice in", id, Err(libc::EINVAL));
        }
        self.shortage.on_splice(id);
        let Self { conns, pipes, .. } = self;
        let called = conns[id].splice_in(id, &mut pipes[pipe], len as u64, now);
        pipes[pipe].moved = now;
        self.hit_fill(id, called, None);
        self.reported("splice in", id, called)
    }

    pub(crate) fn splice_out(&mut self, pipe: usize, id: usize, len: usize) -> Called<usize> {
        let now = self.now;
        self.conn(id);
        let mut moved = 0;
        let mut called = Ok(0);
        while moved < len as u64
            && let Some(slot) = self.pipes[pipe].first()
        {
            let start = self.conns[id].relayed();
            assert!(
                self.conns[id].header.len() as u64 <= self.conns[id].written,
                "#{id}: spliced before the header"
            );
            called = self.conns[id].write(slot.len.min(len as u64 - moved), Push::Now, now);
            let Ok(bytes) = called else { break };
            if let Some(partner) = self.conns[id].partner {
                assert_eq!(
                    (slot.source, slot.start),
                    (partner, start),
                    "#{id}: bytes of another place in the pipe"
                );
            }
            self.pipes[pipe].take(bytes);
            self.pipes[pipe].moved = now;
            moved += bytes;
        }
        self.hit_flush(id, called);
        self.note_written(id, moved);
        self.reported("splice out", id, if moved > 0 { Ok(moved) } else { called })
    }

    /// read(2) of a pipe.
    pub(crate) fn empty_pipe(&mut self, pipe: usize, buffer: &mut [u8]) -> Called<usize> {
        let mut moved = 0;
        while moved < buffer.len()
            && let Some(slot) = self.pipes[pipe].first()
        {
            let bytes = to_usize(slot.len).min(buffer.len() - moved);
            self.conns[slot.source].stream.read(slot.start, &mut buffer[moved..moved + bytes]);
            self.pipes[pipe].take(bytes as u64);
            moved += bytes;
        }
        self.shortage.on_reclaimed(moved as u64);
        self.coverage.hit("pipe reclaimed");
        self.reported("empty pipe", pipe, if moved > 0 { Ok(moved as u64) } else { Err(libc::EAGAIN) })
    }
}
