//! The pools that keys of listeners and routes name.

use std::collections::HashMap;

use super::reader::{Reader, quote};
use crate::base::nearest::did_you_mean;
use crate::config::parse::raw::Key;

/// Returns the index of the pool that the key names.
pub(super) fn named_pool(read: &mut Reader, key: &Key, pool_indices: &HashMap<&str, usize>) -> Option<usize> {
    let name = read.text("pool", key)?;
    let index = pool_indices.get(name).copied();
    if index.is_none() {
        let hint = did_you_mean(name, pool_indices.keys().copied());
        read.wrong("pool", key, format_args!("there is no pool {}{hint}", quote(name)));
    }
    index
}
