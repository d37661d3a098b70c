//! The bytes that a peer sends encode their position, so that no byte needs to be remembered.

use l4lb::base::hash::avalanche;

use crate::random::to_usize;

/// Odd, so that every word of a stream differs from every other.
const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;

/// All bytes that one peer will ever send on one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    /// Word i of stream s is a number that nearly no other place of any stream has.
    Coded(u64),
    /// These bytes, and then zeroes.
    Literal(&'static [u8]),
    /// These bytes, and then those of that stream.
    Begun(&'static [u8], u64),
}

impl Stream {
    /// Writes the bytes from `position` on into `buffer`.
    pub(crate) fn read(self, position: u64, buffer: &mut [u8]) {
        match self {
            Self::Coded(stream) => {
                let (first, mut position, mut rest) = (avalanche(stream), position, buffer);
                while !rest.is_empty() {
                    let (word, skip) = (word(first, position / 8).to_le_bytes(), to_usize(position % 8));
                    let len = rest.len().min(8 - skip);
                    rest[..len].copy_from_slice(&word[skip..skip + len]);
                    rest = &mut rest[len..];
                    position += len as u64;
                }
            }
            Self::Begun(bytes, stream) => {
                let from = to_usize(position).min(bytes.len());
                let (ours, behind) = buffer.split_at_mut((bytes.len() - from).min(buffer.len()));
                ours.copy_from_slice(&bytes[from..from + ours.len()]);
                Self::Coded(stream).read(position.saturating_sub(bytes.len() as u64), behind);
            }
            Self::Literal(bytes) => {
                let from = to_usize(position);
                for (place, byte) in buffer.iter_mut().enumerate() {
                    *byte = bytes.get(from + place).copied().unwrap_or(0);
                }
            }
        }
    }

    /// Returns where `bytes`, expected to begin at `position`, are wrong.
    pub(crate) fn mismatch(self, position: u64, bytes: &[u8]) -> Option<u64> {
        let mut expected = [0; 512];
        for (chunk, start) in bytes.chunks(expected.len()).zip((position..).step_by(expected.len())) {
            let expected = &mut expected[..chunk.len()];
            self.read(start, expected);
            if expected != chunk {
                let place = expected.iter().zip(chunk).position(|(a, b)| a != b).expect("they differ");
                return Some(start + place as u64);
            }
        }
        None
    }
}

fn word(first: u64, index: u64) -> u64 {
    first.wrapping_add(index).wrapping_mul(STRIDE)
}

#[test]
fn a_byte_out_of_place_is_found_where_it_is() {
    let stream = Stream::Coded(7);
    let mut bytes = [0; 3_000];
    stream.read(1_001, &mut bytes);
    assert_eq!(stream.mismatch(1_001, &bytes), None);
    assert_eq!(Stream::Coded(8).mismatch(1_001, &bytes), Some(1_001));
    assert!(stream.mismatch(1_009, &bytes).is_some(), "a word further on");
    bytes[2_000] ^= 1;
    assert_eq!(stream.mismatch(1_001, &bytes), Some(3_001));
    let mut begun = [0; 11];
    Stream::Begun(b"hello", 7).read(2, &mut begun);
    let mut behind = [0; 8];
    stream.read(0, &mut behind);
    assert_eq!((&begun[..3], &begun[3..]), (&b"llo"[..], &behind[..]));
    Stream::Begun(b"hello", 7).read(9, &mut begun);
    assert_eq!(stream.mismatch(4, &begun), None);
}
