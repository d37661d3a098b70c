//! What the peers have counted, and what did not come as it should.

use std::collections::BTreeMap;
use std::fmt;

use l4lb::session::Side;

use crate::script::Kind;

/// What can be wrong with a connection, as seen by one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A byte that is not the one that is due at its place.
    WrongByte,
    /// More bytes than were sent.
    ByteTooMuch,
    /// An end of stream before the last byte.
    Truncated,
    /// An end of stream where a reset was due.
    NoReset,
    /// A reset where all bytes and the end were due.
    ResetTooMuch,
    /// A reset came, and not all bytes that had been acknowledged.
    AcknowledgedLost,
    /// The client's first bytes are no header of this run.
    WrongHeader,
    /// A second connection of the same number.
    Twice,
    /// Nothing moved for too long.
    Stalled,
    /// The client could not connect.
    NotConnected,
    /// A call failed in a way that nobody has scripted.
    Failed,
}

/// A fault, and where.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) fault: Fault,
    pub(crate) detail: String,
}

impl Mismatch {
    pub(crate) fn new(fault: Fault, detail: impl fmt::Display) -> Self {
        Self { fault, detail: detail.to_string() }
    }
}

/// Of one side and one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row {
    pub(crate) connections: u64,
    /// Bytes that its kernel has taken, with headers.
    pub(crate) sent: u64,
    /// Bytes that it has read, with headers.
    pub(crate) received: u64,
    pub(crate) mismatches: u64,
}

/// What all peers together have counted.
#[derive(Debug)]
pub(crate) struct Books {
    /// By [`Side`] and [`Kind`].
    rows: [[Row; Kind::COUNT]; 2],
    /// Connections that clients completed.
    pub(crate) connected: u64,
    /// Connections of which the client was gone before it could know.
    pub(crate) perhaps_connected: u64,
    /// Connections that a client left without a reset, and without waiting for an end.
    pub(crate) left: u64,
    /// Connections that a peer has reset, by [`Side`].
    pub(crate) resets: [u64; 2],
    /// Connections that backends accepted.
    pub(crate) accepted: u64,
    /// Connections that a backend has, of them.
    pub(crate) backend_active: u64,
    /// Connections that ended, or were reset, before a backend knew which they were; and their bytes.
    pub(crate) ended_unknown: u64,
    pub(crate) reset_unknown: u64,
    pub(crate) bytes_unknown: u64,
    seen: Vec<bool>,
    faults: BTreeMap<Fault, (u64, String)>,
}

impl Books {
    pub(crate) fn new(connections: usize) -> Self {
        Self {
            rows: Default::default(),
            connected: 0,
            perhaps_connected: 0,
            left: 0,
            resets: [0; 2],
            accepted: 0,
            backend_active: 0,
            ended_unknown: 0,
            reset_unknown: 0,
            bytes_unknown: 0,
            seen: vec![false; connections],
            faults: BTreeMap::new(),
        }
    }

    pub(crate) fn row(&self, side: Side, kind: Kind) -> Row {
        self.rows[side as usize][kind as usize]
    }

    /// A connection is over for one of its ends.
    pub(crate) fn on_over(&mut self, side: Side, kind: Kind, sent: u64, received: u64) {
        let row = &mut self.rows[side as usize][kind as usize];
        row.connections += 1;
        row.sent += sent;
        row.received += received;
    }

    pub(crate) fn on_mismatch(
        &mut self,
        side: Side,
        kind: Option<Kind>,
        id: Option<u64>,
        mismatch: &Mismatch,
    ) {
        if let Some(kind) = kind {
            self.rows[side as usize][kind as usize].mismatches += 1;
        }
        let first = self.faults.entry(mismatch.fault).or_insert_with(|| {
            let (kind, id) = (kind.map(Kind::as_str), id.map(|id| id.to_string()));
            let text = |text: Option<String>| text.unwrap_or_else(|| "?".into());
            let kind = text(kind.map(str::to_owned));
            (0, format!("connection {} ({kind}), {}: {}", text(id), side.as_str(), mismatch.detail))
        });
        first.0 += 1;
    }

    /// A backend has read the header of a connection. False if it has before, or there is no such connection.
    pub(crate) fn is_first(&mut self, id: u64) -> bool {
        let seen = usize::try_from(id).ok().and_then(|id| self.seen.get_mut(id));
        seen.is_some_and(|seen| !std::mem::replace(seen, true))
    }

    /// Faults, how often, and the first of each.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (Fault, u64, &str)> {
        self.faults.iter().map(|(&fault, (count, first))| (fault, *count, first.as_str()))
    }

    /// The sum of `figure` over the kinds that `of` takes.
    pub(crate) fn sum(&self, side: Side, of: impl Fn(Kind) -> bool, figure: impl Fn(Row) -> u64) -> u64 {
        Kind::all().filter(|&kind| of(kind)).map(|kind| figure(self.row(side, kind))).sum()
    }
}
