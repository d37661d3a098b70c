//! Unique names.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Returns a name never used before, here or in another process. Must not be used as a secret.
pub fn unique_name() -> String {
    // Its keys come from the randomness of the operating system.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_differ() {
        let names: HashSet<String> = (0..1000).map(|_| unique_name()).collect();
        assert_eq!(names.len(), 1000);
    }
}
