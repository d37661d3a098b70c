//! What happens on a connection: everything follows from the seed of the run and the number of the connection, so both
//! ends know the whole script without a word between them.

use l4lb::base::hash::avalanche;
use l4lb::base::rng::Rng;
use l4lb::session::Side;

use crate::stream::SLICE_MAX;

const KIB: u64 = 1 << 10;
/// More than the send buffer of a connection over loopback, which begins at about 2.5 MiB (`tcp_sndbuf_expand`).
const LARGE_MIN: u64 = 4 << 20;
/// A sender that waits until all is acknowledged sends no more than fits into any receive buffer.
const ACKNOWLEDGED_MAX: u64 = 32 * KIB;
/// SO_RCVBUF of a client that reads slowly.
const SMALL_BUFFER: u32 = 8 * 1024;
/// A stream is cut into about so many calls at most: more of them cost more time than they find.
const SLICES: u64 = 10;

/// What a connection is there to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Both send at once and end when they have sent all.
    Exchange,
    /// The client sends and ends its half; the backend answers to the end.
    RequestAnswer,
    /// The backend sends and ends its half; the client answers to the end.
    AnswerFirst,
    /// The backend sends, the client answers to it, and both end.
    Greeting,
    /// Each ends only when it has got everything, so that both ends cross.
    EndTogether,
    /// Readers with small buffers that pause.
    SlowReader,
    /// More than the kernel takes for a reader that is late, one way, so that the balancer has to keep some of it.
    Large,
    /// Not a byte: a connect and two ends of stream.
    Silent,
    /// The client resets after some bytes.
    ClientReset,
    /// The client resets when its bytes are acknowledged: none of them may be lost.
    ClientResetAcked,
    /// The backend resets after some bytes.
    BackendReset,
    /// The backend resets when its bytes are acknowledged: none of them may be lost.
    BackendResetAcked,
    /// The backend answers and closes without having read the request.
    EarlyClose,
    /// The client resets once it is connected, without a byte.
    ConnectReset,
    /// The client is gone before it can know that it is connected, half of them by a reset.
    Gone,
}

/// Of a thousand connections so many are of that kind.
const MIX: [(Kind, u64); 15] = [
    (Kind::Exchange, 298),
    (Kind::RequestAnswer, 240),
    (Kind::AnswerFirst, 80),
    (Kind::Greeting, 60),
    (Kind::EndTogether, 60),
    (Kind::SlowReader, 20),
    (Kind::Large, 2),
    (Kind::Silent, 40),
    (Kind::ClientReset, 40),
    (Kind::ClientResetAcked, 30),
    (Kind::BackendReset, 40),
    (Kind::BackendResetAcked, 30),
    (Kind::EarlyClose, 30),
    (Kind::ConnectReset, 15),
    (Kind::Gone, 15),
];

impl Kind {
    pub(crate) const COUNT: usize = MIX.len();

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        MIX.into_iter().map(|(kind, _)| kind)
    }

    fn draw(rng: &mut Rng) -> Self {
        let mut ticket = rng.below(MIX.iter().map(|(_, share)| share).sum());
        for (kind, share) in MIX {
            match ticket.checked_sub(share) {
                Some(rest) => ticket = rest,
                None => return kind,
            }
        }
        Self::Exchange
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::RequestAnswer => "request, answer",
            Self::AnswerFirst => "answer, request",
            Self::Greeting => "greeting",
            Self::EndTogether => "end together",
            Self::SlowReader => "slow reader",
            Self::Large => "large",
            Self::Silent => "silent",
            Self::ClientReset => "client reset",
            Self::ClientResetAcked => "client reset, acked",
            Self::BackendReset => "backend reset",
            Self::BackendResetAcked => "backend reset, acked",
            Self::EarlyClose => "early close",
            Self::ConnectReset => "connect, reset",
            Self::Gone => "gone",
        }
    }

    /// Whether both streams end properly, so that every byte has to arrive.
    pub(crate) const fn is_whole(self) -> bool {
        match self {
            Self::Exchange
            | Self::RequestAnswer
            | Self::AnswerFirst
            | Self::Greeting
            | Self::EndTogether
            | Self::SlowReader
            | Self::Large
            | Self::Silent => true,
            Self::ClientReset
            | Self::ClientResetAcked
            | Self::BackendReset
            | Self::BackendResetAcked
            | Self::EarlyClose
            | Self::ConnectReset
            | Self::Gone => false,
        }
    }

    /// Whether the client may be gone before a backend has seen which connection it is on.
    pub(crate) const fn may_stay_anonymous(self) -> bool {
        matches!(self, Self::ClientReset | Self::ConnectReset | Self::Gone)
    }

    /// Whether a client of that kind says which connection it is.
    pub(crate) const fn has_header(self) -> bool {
        !matches!(self, Self::Silent | Self::ConnectReset | Self::Gone)
    }
}

/// When a side begins to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    AtOnce,
    /// When everything has come that the other side will send.
    BehindBytes,
    /// When the other side has ended its stream.
    BehindEnd,
}

/// How a side leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Ends its stream behind its last byte.
    Fin,
    /// Ends its stream when everything has come, too.
    FinBehindBytes,
    /// Resets when it has sent all, has read so many bytes and, if wanted, all that it sent is acknowledged.
    Reset { reads: u64, acknowledged: bool },
    /// Closes without a look at what has come.
    CloseUnread,
}

/// How a stream has to end for its reader. An end of stream is only ever right behind the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// All bytes, then the end.
    End,
    /// A reset, behind at least so many bytes.
    Reset { at_least: u64 },
    /// TCP allows both: the close may come as an end, if nothing had come that was not read, or as a reset.
    EndOrReset,
}

/// How a side reads and writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Each call moves 1 to so many bytes.
    pub(crate) slice_max: u64,
    /// After one call in so many there is a pause; 0 is never.
    pub(crate) pause_one_in: u64,
    pub(crate) pauses_max: u32,
}

/// What one side does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Bytes, without the header.
    pub(crate) sends: u64,
    pub(crate) begins: Begin,
    pub(crate) leaves: Leave,
    /// Bytes that the other side would send, were there no resets; without the header.
    pub(crate) awaits: u64,
    pub(crate) due: Due,
    pub(crate) pace: Pace,
    /// Waits before it reads, until the buffers on the way are full.
    pub(crate) reads_late: bool,
    /// SO_RCVBUF; backends have theirs from the listener.
    pub(crate) receive_buffer: Option<u32>,
}

/// What happens on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) kind: Kind,
    /// By [`Side`].
    pub(crate) parts: [Part; 2],
    /// Which of two ways it is, where a kind has two.
    pub(crate) coin: bool,
}

impl Script {
    /// The script of connection `id`; `resets`: or else of one that ends properly.
    pub(crate) fn of(seed: u64, id: u64, resets: bool) -> Self {
        let mut rng = Rng::new(avalanche(seed ^ avalanche(!id)));
        let mut kind = Kind::draw(&mut rng);
        if !resets && !kind.is_whole() {
            kind = Kind::Exchange;
        }
        let mut sizes = [size(kind, &mut rng), size(kind, &mut rng)];
        let coin = rng.below(2) == 0;
        let late = if coin { Side::Client } else { Side::Backend };
        if kind == Kind::Large {
            sizes[late.other() as usize] = LARGE_MIN + rng.below(LARGE_MIN);
        }
        let mut parts = Side::BOTH.map(|side| Part {
            sends: sizes[side as usize],
            begins: Begin::AtOnce,
            leaves: Leave::Fin,
            awaits: sizes[side.other() as usize],
            due: Due::End,
            pace: pace(kind, sizes[0].max(sizes[1]), &mut rng),
            receive_buffer: matches!(kind, Kind::SlowReader | Kind::Large).then_some(SMALL_BUFFER),
            reads_late: kind == Kind::Large && side == late,
        });
        let [client, backend] = &mut parts;
        match kind {
            Kind::Exchange | Kind::SlowReader | Kind::Large => {}
            Kind::RequestAnswer => backend.begins = Begin::BehindEnd,
            Kind::AnswerFirst => client.begins = Begin::BehindEnd,
            Kind::Greeting => client.begins = Begin::BehindBytes,
            Kind::EndTogether => {
                client.leaves = Leave::FinBehindBytes;
                backend.leaves = Leave::FinBehindBytes;
            }
            Kind::ClientReset => reset(client, backend, false, &mut rng),
            Kind::ClientResetAcked => reset(client, backend, true, &mut rng),
            Kind::BackendReset => reset(backend, client, false, &mut rng),
            Kind::BackendResetAcked => reset(backend, client, true, &mut rng),
            Kind::EarlyClose => {
                backend.leaves = Leave::CloseUnread;
                client.due = Due::EndOrReset;
            }
            Kind::Silent | Kind::ConnectReset | Kind::Gone => {
                for part in [client, backend] {
                    (part.sends, part.awaits) = (0, 0);
                }
            }
        }
        Self { kind, parts, coin }
    }
}

/// `leaver` resets after its bytes. Where these are to be acknowledged it has read from `other` first, which proves
/// that somebody is connected to take them: a client that is gone during the dial is not relayed.
fn reset(leaver: &mut Part, other: &mut Part, acknowledged: bool, rng: &mut Rng) {
    if acknowledged {
        leaver.sends = leaver.sends.min(ACKNOWLEDGED_MAX);
        other.awaits = leaver.sends;
        other.sends = other.sends.max(1);
        leaver.awaits = other.sends;
    }
    let reads = if acknowledged { 1 + rng.below(other.sends) } else { rng.below(other.sends + 1) };
    leaver.leaves = Leave::Reset { reads, acknowledged };
    other.due = Due::Reset { at_least: if acknowledged { leaver.sends } else { 0 } };
}

fn size(kind: Kind, rng: &mut Rng) -> u64 {
    match kind {
        Kind::SlowReader => 32 * KIB + rng.below(256 * KIB),
        Kind::Exchange
        | Kind::RequestAnswer
        | Kind::AnswerFirst
        | Kind::Greeting
        | Kind::EndTogether
        | Kind::Large
        | Kind::Silent
        | Kind::ClientReset
        | Kind::ClientResetAcked
        | Kind::BackendReset
        | Kind::BackendResetAcked
        | Kind::EarlyClose
        | Kind::ConnectReset
        | Kind::Gone => match rng.below(10) {
            0 => 0,
            1..=3 => rng.below(100),
            4..=7 => rng.below(4 * KIB),
            _ => rng.below(64 * KIB + 2),
        },
    }
}

fn pace(kind: Kind, bytes: u64, rng: &mut Rng) -> Pace {
    if kind == Kind::SlowReader {
        return Pace { slice_max: 16 * KIB, pause_one_in: 4, pauses_max: 20 };
    }
    // As many small slices as large ones.
    let drawn = SLICE_MAX as u64 >> rng.below(17);
    let slice_max = drawn.max(bytes / SLICES).clamp(1, SLICE_MAX as u64);
    Pace { slice_max, pause_one_in: if rng.below(8) == 0 { 4 } else { 0 }, pauses_max: 4 }
}
