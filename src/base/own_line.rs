//! Keeps data that one thread writes off the cache lines that others read.

use std::ops::Deref;

/// A value that shares no cache line with anything else. A line has 64 bytes, and processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct OwnLine<T>(pub T);

impl<T> Deref for OwnLine<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
