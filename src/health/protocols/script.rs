//! The steps of a configuration: bytes to send, then text to find in what arrives.
//!
//! A step begins behind the text that the step before it has found. So what arrives early belongs to the next step, and
//! how the network cuts it does not matter.

use super::dialogue::{Dialogue, Inbox, Read};
use crate::config::model::ScriptStep;
use crate::health::cause::{Cause, Place};
use crate::health::expected::Expected;

#[derive(Debug)]
pub(super) struct Script {
    steps: Vec<ScriptStep>,
    current: usize,
    /// Bytes of the inbox in which the text does not begin.
    searched: usize,
}

impl Script {
    pub(super) fn new(steps: &[ScriptStep]) -> Self {
        Self { steps: steps.to_vec(), current: 0, searched: 0 }
    }

    fn expected_text(&self) -> &[u8] {
        self.steps.get(self.current).map_or(&[], |step| &step.expect)
    }

    /// Sends what the steps from the current one on have to send, up to the first that expects something.
    fn send(&mut self, out: &mut Vec<u8>) {
        while let Some(step) = self.steps.get(self.current) {
            out.extend_from_slice(&step.send);
            if !step.expect.is_empty() {
                return;
            }
            self.current += 1;
        }
    }
}

impl Dialogue for Script {
    fn open(&mut self, out: &mut Vec<u8>) {
        self.send(out);
    }

    fn read(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Read, Cause> {
        let expected = self.expected_text();
        let mut windows = inbox.bytes()[self.searched..].windows(expected.len().max(1));
        let Some(found) = windows.position(|window| window == expected) else {
            self.searched = (inbox.bytes().len() + 1).saturating_sub(expected.len()).max(self.searched);
            return Ok(Read::Incomplete);
        };
        let end = self.searched + found + expected.len();
        drop(inbox.take(end));
        (self.current, self.searched) = (self.current + 1, 0);
        self.send(out);
        Ok(if self.current == self.steps.len() { Read::Passed } else { Read::Message })
    }

    fn place(&self) -> Option<Place> {
        Some(Place::Step { number: self.current + 1, count: self.steps.len() })
    }

    fn expected(&self) -> Expected {
        Expected::bytes("text with", self.expected_text())
    }

    fn overflow(&self, inbox: &Inbox) -> Cause {
        Cause::Missing { expected: self.expected_text().into(), got: inbox.got() }
    }

    fn closed(&self, inbox: &Inbox) -> Cause {
        if inbox.bytes().is_empty() { Cause::Closed { got: inbox.got() } } else { self.overflow(inbox) }
    }
}
