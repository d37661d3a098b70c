//! The tier of a backend: `priority`, and `backup`, which is another word for the last tier.

use super::error::Invalid;
use super::ranges::PRIORITY_MAX;

/// Returns the priority of a backend with these two keys, 0 without any. Fails when they contradict each other.
pub fn priority_of(priority: Option<u8>, backup: Option<bool>) -> Result<u8, Invalid> {
    match (priority, backup) {
        (Some(priority), Some(backup)) if backup != (priority == PRIORITY_MAX) => Err(Invalid(format!(
            "{priority} contradicts backup = {backup}: backup = true means priority = {PRIORITY_MAX}"
        ))),
        (Some(priority), _) => Ok(priority),
        (None, Some(true)) => Ok(PRIORITY_MAX),
        (None, Some(false) | None) => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backup_means_the_last_priority_and_may_stand_beside_it() {
        for (priority, backup, expected) in [
            (None, None, Some(0)),
            (None, Some(false), Some(0)),
            (None, Some(true), Some(15)),
            (Some(0), None, Some(0)),
            (Some(3), None, Some(3)),
            (Some(3), Some(false), Some(3)),
            (Some(15), Some(true), Some(15)),
            (Some(15), Some(false), None),
            (Some(3), Some(true), None),
            (Some(0), Some(true), None),
        ] {
            assert_eq!(priority_of(priority, backup).ok(), expected, "{priority:?}, backup {backup:?}");
        }
    }
}
