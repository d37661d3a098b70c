//! The input that the threads of `l4lb top` send to the drawing thread.

use std::io;

use super::app::{Key, News};

/// An input of the main thread.
#[derive(Debug)]
pub(super) enum Input {
    Key(Key),
    Resized,
    News(News),
    /// No more keys will come.
    Blind(io::Error),
}
