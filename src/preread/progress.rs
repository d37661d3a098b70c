//! How far a parser has come.

use super::header::Refusal;

/// The result of a parser for the bytes that have arrived. `R` is why it refuses bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T, R = Refusal> {
    /// At least so many more bytes are needed, one or more.
    More(usize),
    /// The result, and the number of bytes that it took.
    Done(T, usize),
    /// No bytes that follow can make it right.
    Refused(R),
}
