//! Bytes that know their place: each follows from the seed, the connection, the direction and its position.
//! A byte that is foreign, lost, doubled or out of order differs from the one that is due, and is found where it
//! stands. Comparing every byte leaves nothing that a hash over the stream could add.

use l4lb::base::hash::avalanche;
use l4lb::session::Direction;

/// Bytes of the header, with which a client's stream begins.
pub(crate) const HEADER_LEN: usize = 24;
/// The most that one call reads or writes.
pub(crate) const SLICE_MAX: usize = 70_000;
const WORD: usize = size_of::<u64>();

/// Names the connection and the run to a backend.
pub(crate) fn header(seed: u64, id: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    for (bytes, word) in header.chunks_exact_mut(WORD).zip([magic(seed), id, avalanche(magic(seed) ^ id)]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    header
}

/// The connection that a header names, if it is a header of this run.
pub(crate) fn id_of(seed: u64, bytes: [u8; HEADER_LEN]) -> Option<u64> {
    let id = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
    (header(seed, id) == bytes).then_some(id)
}

fn magic(seed: u64) -> u64 {
    avalanche(seed ^ 0x6c34_6c62_736f_616b)
}

/// What is sent in one direction of one connection, behind the header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    key: u64,
}

impl Stream {
    pub(crate) fn of(seed: u64, id: u64, direction: Direction) -> Self {
        Self { key: avalanche(avalanche(seed ^ avalanche(id)) ^ direction as u64) }
    }
}

/// Room in which streams are made anew, to be sent or to compare with.
#[derive(Debug)]
pub(crate) struct Scratch {
    words: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        // A slice may begin and end within a word.
        Self { words: vec![0; SLICE_MAX + 2 * WORD] }
    }

    /// The `len` bytes of `stream` from byte `at` on; at most [`SLICE_MAX`].
    pub(crate) fn bytes(&mut self, stream: Stream, at: u64, len: usize) -> &[u8] {
        let (first, skip) = (at / WORD as u64, usize::try_from(at % WORD as u64).unwrap_or(0));
        let words = self.words[..(skip + len).next_multiple_of(WORD)].chunks_exact_mut(WORD);
        for (bytes, index) in words.zip(first..) {
            bytes.copy_from_slice(&avalanche(stream.key ^ index).to_le_bytes());
        }
        &self.words[skip..skip + len]
    }

    /// Where in `came`, which should be what `stream` has from byte `at` on, the first wrong byte is.
    pub(crate) fn first_wrong(&mut self, stream: Stream, at: u64, came: &[u8]) -> Option<u64> {
        let due = self.bytes(stream, at, came.len());
        if due == came {
            return None;
        }
        due.iter().zip(came).position(|(due, came)| due != came).map(|index| at + index as u64)
    }
}

/// An error if a wrong byte could pass for a right one: then a run without a mismatch would prove nothing.
pub(crate) fn expect_faults_are_found(seed: u64) -> anyhow::Result<()> {
    let (mut scratch, at) = (Scratch::new(), 1_003);
    let stream = Stream::of(seed, 1, Direction::ToBackend);
    let right = scratch.bytes(stream, at, 100).to_vec();
    let mut flipped = right.clone();
    flipped[41] ^= 1;
    let lost = [&right[..41], &right[42..]].concat();
    let doubled = [&right[..41], &right[40..]].concat();
    let swapped = [&right[..41], &right[49..57], &right[41..49]].concat();
    for (what, came) in [("flipped", flipped), ("lost", lost), ("doubled", doubled), ("swapped", swapped)] {
        // Neighbours may be alike: one byte in 256 is.
        let found = scratch.first_wrong(stream, at, &came);
        anyhow::ensure!(
            found.is_some_and(|place| (41..=44).contains(&(place - at))),
            "{what}: found at {found:?}"
        );
    }
    let foreign = [(2, Direction::ToBackend), (1, Direction::ToClient)];
    for (id, direction) in foreign {
        let came = scratch.bytes(Stream::of(seed, id, direction), at, 8).to_vec();
        anyhow::ensure!(scratch.first_wrong(stream, at, &came).is_some(), "bytes of another stream pass");
    }
    anyhow::ensure!(scratch.first_wrong(stream, at, &right).is_none(), "right bytes do not pass");
    Ok(())
}
