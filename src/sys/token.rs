//! The subject of an event, packed into the 64 bits that epoll returns.

use crate::base::slots::{GENERATION_BITS, Key};
use crate::session::Side;

const INDEX_BITS: u32 = 32;
const KIND_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;

/// Kinds, of which three bits hold eight. The two sides of a session are kinds of their own: no other kind has sides.
const CLIENT: u64 = 0;
const BACKEND: u64 = 1;
const PROBE: u64 = 2;
const LISTENER: u64 = 3;
const AGENT: u64 = 4;
/// Has no key; mio gets it for the waker of a worker.
const WAKE: u64 = 7;

/// The subject of an event. A key in it names one occupant, so an event for a closed connection finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// One of the two connections of a session.
    Session(Key, Side),
    /// The connection of a health check; the generation counts the attempts of all probes.
    Probe(Key),
    /// The connection to an agent; the generation counts the attempts of all agents.
    Agent(Key),
    /// A listener of the worker, by its index.
    Listener(u32),
    /// The mailbox of the worker.
    Wake,
}

impl Token {
    /// Returns it packed: 3 bits of kind, 29 of generation, 32 of index.
    pub fn pack(self) -> u64 {
        let key_bits = |key: Key| u64::from(key.generation) << INDEX_BITS | u64::from(key.index);
        let (kind, bits) = match self {
            Self::Session(key, Side::Client) => (CLIENT, key_bits(key)),
            Self::Session(key, Side::Backend) => (BACKEND, key_bits(key)),
            Self::Probe(key) => (PROBE, key_bits(key)),
            Self::Agent(key) => (AGENT, key_bits(key)),
            Self::Listener(index) => (LISTENER, u64::from(index)),
            Self::Wake => (WAKE, 0),
        };
        kind << KIND_SHIFT | bits
    }

    /// Returns the token from `bits`, which must come from [`Token::pack`].
    #[expect(clippy::cast_possible_truncation, reason = "takes the bits apart")]
    pub fn unpack(bits: u64) -> Self {
        let index = (bits & u64::from(u32::MAX)) as u32;
        let generation = (bits >> INDEX_BITS) as u32 & ((1 << GENERATION_BITS) - 1);
        let key = Key { index, generation };
        match bits >> KIND_SHIFT {
            CLIENT => Self::Session(key, Side::Client),
            BACKEND => Self::Session(key, Side::Backend),
            PROBE => Self::Probe(key),
            AGENT => Self::Agent(key),
            LISTENER => Self::Listener(index),
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
            Token::Session(key, Side::Backend),
            Token::Session(small, Side::Client),
            Token::Session(small, Side::Backend),
            Token::Probe(key),
            Token::Probe(small),
            Token::Agent(key),
            Token::Agent(small),
            Token::Listener(u32::MAX),
            Token::Listener(0),
            Token::Wake,
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
