//! The contract between a conversation without a socket and its driver. Checks and agents are driven alike.

use std::io::ErrorKind;
use std::time::Duration;

use crate::health::cause::Cause;

/// A conversation over one connection.
///
/// The driver must call [`Conversation::next_step`], do what it returns, report the outcome through one of the `on_…`
/// methods, and ask again. From [`Step::Finished`] on the result stands and the driver must close the socket: with FIN
/// if [`Conversation::exchanged_data`], with RST (linger 0) after a bare connect. A report that does not belong to the
/// current step changes nothing. The driver also keeps the deadline and reports [`Conversation::on_timeout`].
pub trait Conversation {
    /// Returns the next step; the same one until a report changes it.
    fn next_step(&self) -> Step<'_>;

    /// Returns whether bytes were exchanged, so that the connection must be closed with a FIN.
    fn exchanged_data(&self) -> bool;

    /// Must be called once connected.
    fn on_connected(&mut self);

    /// Must be called when the socket was connected to itself.
    fn on_self_connect(&mut self);

    /// Must be called when the kernel accepted `count` more bytes.
    fn on_sent(&mut self, count: usize);

    /// Must be called with the bytes received; none is not an end of file.
    fn on_received(&mut self, bytes: &[u8]);

    /// Must be called when the peer has ended its stream.
    fn on_eof(&mut self);

    /// Must be called when the current step ended with an error of the connection. Must not be called for errors of
    /// this host (EMFILE, EADDRNOTAVAIL), which mean nothing for the peer: drop the conversation and try again later.
    fn on_failed(&mut self, kind: ErrorKind);

    /// Must be called when the conversation has taken `limit`, its timeout.
    fn on_timeout(&mut self, limit: Duration);
}

/// The next action of the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Connect, then report `on_connected`, `on_self_connect` or `on_failed`.
    Dial,
    /// Send as many of these bytes as possible, at least one; then report `on_sent` or `on_failed`.
    Send(&'a [u8]),
    /// Receive, then report `on_received`, `on_eof` or `on_failed`.
    Receive,
    /// Close the socket: this is the result.
    Finished(Result<(), &'a Cause>),
}
