//! The queue of commands to one worker, and the way to wake it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::messages::command::Command;
use crate::sys::Wake;

/// At most this many commands wait in one mailbox.
pub const MAILBOX_LEN: usize = 1024;

/// The result of a [`Mailbox::ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    /// The worker turns, or is stuck.
    Alive,
    /// The worker has stopped and reads no commands.
    Stopped,
}

/// The sending end of the commands to one worker.
#[derive(Clone)]
pub struct Mailbox {
    commands: SyncSender<Command>,
    waker: Arc<dyn Wake>,
}

impl Mailbox {
    /// Returns a mailbox that wakes its reader by `waker`, and the reader's end.
    pub fn new(waker: Arc<dyn Wake>) -> (Self, Receiver<Command>) {
        let (commands, inbox) = sync_channel(MAILBOX_LEN);
        (Self { commands, waker }, inbox)
    }

    /// Puts a command in and wakes the worker. Returns false when the mailbox is full: the sender must try again later.
    /// Returns true for a worker that has stopped, which needs no commands.
    pub fn post(&self, command: Command) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => self.waker.wake().is_ok(),
            Err(TrySendError::Disconnected(_)) => true,
            // The commands in it have woken the worker already.
            Err(TrySendError::Full(_)) => false,
        }
    }

    /// Makes the worker turn once more. When its mailbox is full, the commands in it have woken it already.
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
