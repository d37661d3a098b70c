//! Where the commands for one worker wait, and what wakes it for them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::messages::command::Command;
use crate::sys::Wake;

/// Commands that wait in one mailbox at most.
pub const MAILBOX_LEN: usize = 1024;

/// What became of a [`Mailbox::ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    /// The worker turns, or is stuck.
    Alive,
    /// The worker has stopped.
    Stopped,
}

/// Where commands for one worker are put.
#[derive(Clone)]
pub struct Mailbox {
    commands: SyncSender<Command>,
    waker: Arc<dyn Wake>,
}

impl Mailbox {
    /// A mailbox whose reader is woken by `waker`, and its other end.
    pub fn new(waker: Arc<dyn Wake>) -> (Self, Receiver<Command>) {
        let (commands, inbox) = sync_channel(MAILBOX_LEN);
        (Self { commands, waker }, inbox)
    }

    /// Puts a command in, unless the mailbox is full: then false, and it is the sender's to say it again.
    /// Nothing is lost on a worker that has stopped: it needs no commands.
    pub fn post(&self, command: Command) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => self.waker.wake().is_ok(),
            Err(TrySendError::Disconnected(_)) => true,
            // Its commands have woken the worker already.
            Err(TrySendError::Full(_)) => false,
        }
    }

    /// Has the worker turn once more. Where its mailbox is full its commands have woken it already.
    pub fn ping(&self) -> Ping {
        match self.commands.try_send(Command::Wake) {
            Ok(()) => {
                if let Err(error) = self.waker.wake() {
                    log::error!(error:%; "cannot wake a worker");
                }
                Ping::Alive
            }
            Err(TrySendError::Full(_)) => Ping::Alive,
            Err(TrySendError::Disconnected(_)) => Ping::Stopped,
        }
    }
}
