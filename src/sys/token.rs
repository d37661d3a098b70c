//! The subject of an event, packed into the 64 bits that epoll returns.

use crate::base::slots::{GENERATION_BITS, Key};
use crate::session::Side;

const INDEX_BITS: u32 = 32;
const SIDE_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;
const KIND_SHIFT: u32 = SIDE_SHIFT + 1;
/// Never given out; mio gets it for the waker of a worker.
const WAKE: u64 = 3 << KIND_SHIFT;

/// The subject of an event. A key in it names one occupant, so an event for a closed connection finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// One of the two connections of a session.
    Session(Key, Side),
    /// The connection of a health check; the generation counts the attempts of all probes.
    Probe(Key),
    /// A listener of the worker, by its index.
    Listener(u32),
    /// The mailbox of the worker.
    Wake,
}

impl Token {
    /// Returns it packed: 2 bits of kind, 1 of side, 29 of generation, 32 of index.
    pub fn pack(self) -> u64 {
        let key_bits = |key: Key| u64::from(key.generation) << INDEX_BITS | u64::from(key.index);
        match self {
            Self::Session(key, side) => (side as u64) << SIDE_SHIFT | key_bits(key),
            Self::Probe(key) => 1 << KIND_SHIFT | key_bits(key),
            Self::Listener(index) => 2 << KIND_SHIFT | u64::from(index),
            Self::Wake => WAKE,
        }
    }

    /// Returns the token from `bits`, which must come from [`Token::pack`].
    #[expect(clippy::cast_possible_truncation, reason = "takes the bits apart")]
    pub fn unpack(bits: u64) -> Self {
        let index = (bits & u64::from(u32::MAX)) as u32;
        let generation = (bits >> INDEX_BITS) as u32 & ((1 << GENERATION_BITS) - 1);
        let side = if bits >> SIDE_SHIFT & 1 == 0 { Side::Client } else { Side::Backend };
        match bits >> KIND_SHIFT {
            0 => Self::Session(Key { index, generation }, side),
            1 => Self::Probe(Key { index, generation }),
            2 => Self::Listener(index),
            _ => Self::Wake,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_survives_packing() {
        let key = Key { index: u32::MAX, generation: (1 << GENERATION_BITS) - 1 };
        let small = Key { index: 0, generation: 0 };
        for token in [
            Token::Session(key, Side::Client),
            Token::Session(small, Side::Backend),
            Token::Probe(key),
            Token::Probe(small),
            Token::Listener(7),
            Token::Wake,
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
