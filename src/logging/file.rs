//! The access log: a file that is appended to, and reopened when it has been renamed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::token_bucket::TokenBucket;
use crate::logging::lines::Lines;
use crate::logging::queue::Output;
use crate::sys::{self, Clock};

/// Lost lines are reported at most this often.
const REPORT_PERIOD: Duration = Duration::from_secs(10);

/// The open file. If it cannot be written, lines are lost; no thread waits for a full disk.
pub(super) struct AccessFile {
    path: PathBuf,
    lines: Lines<File>,
    clock: Clock,
    reporting: TokenBucket,
    /// Lines that could not be written and are not reported yet, and the last error.
    lost: Option<(u64, io::Error)>,
    /// Lines that did not fit into the queue and are not reported yet.
    dropped: u64,
}

impl AccessFile {
    /// Opens the file at `path`; creates it if it does not exist.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let clock = Clock::start();
        Ok(Self {
            path: path.to_owned(),
            lines: open_lines(path)?,
            clock,
            reporting: TokenBucket::new(1, REPORT_PERIOD, clock.now()),
            lost: None,
            dropped: 0,
        })
    }

    /// Reports lost lines, now or together with later ones.
    fn report_lost(&mut self) {
        if self.reporting.take(self.clock.now()).is_none() {
            return;
        }
        let path = self.path.display();
        if let Some((lines, error)) = self.lost.take() {
            log::error!(path:%, lines, error:%; "the access log cannot be written, lines are lost");
        }
        let lines = std::mem::take(&mut self.dropped);
        if lines > 0 {
            log::warn!(path:%, lines; "lines of the access log were dropped: its disk did not keep up");
        }
    }
}

/// A full disk may have torn the file before, in this process or another one.
fn open_lines(path: &Path) -> io::Result<Lines<File>> {
    let file = sys::open_log(path)?;
    let is_torn = sys::ends_within_line(&file);
    Ok(Lines::new(file, is_torn))
}

impl Output for AccessFile {
    fn write(&mut self, batch: &[u8]) -> u64 {
        let Err((lines, error)) = self.lines.write(batch) else { return 0 };
        let before = self.lost.as_ref().map_or(0, |&(lines, _)| lines);
        self.lost = Some((before + lines, error));
        self.report_lost();
        lines
    }

    fn reopen(&mut self) {
        let path = self.path.display();
        match open_lines(&self.path) {
            Ok(lines) => {
                self.lines = lines;
                log::info!(path:%; "access log reopened");
            }
            Err(error) => {
                log::error!(path:%, error:%; "cannot reopen the access log, lines still go to the old file");
            }
        }
    }

    fn report_dropped(&mut self, lines: u64) {
        self.dropped += lines;
        self.report_lost();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn lines_are_appended_and_a_renamed_file_is_followed_by_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        fs::write(&path, "from the last run\n").unwrap();
        let mut access = AccessFile::open(&path).unwrap();
        assert_eq!(access.write(b"one\n"), 0);
        fs::rename(&path, &old).unwrap();
        assert_eq!(access.write(b"two\n"), 0);
        access.reopen();
        assert_eq!(access.write(b"three\n"), 0);
        assert_eq!(fs::read_to_string(&old).unwrap(), "from the last run\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}: other users must not read the addresses of clients");
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("old"));
        let mut access = AccessFile::open(&path).unwrap();
        fs::rename(&path, &old).unwrap();
        fs::create_dir(&path).unwrap();
        access.reopen();
        assert_eq!(access.write(b"one\n"), 0);
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\n");
    }

    /// Case 103.
    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted() {
        let mut access = AccessFile::open(Path::new("/dev/full")).unwrap();
        assert_eq!(access.write(b"one\ntwo\n"), 2);
    }

    #[test]
    fn a_file_that_ends_within_a_line_is_healed_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        fs::write(&path, "whole\ntor").unwrap();
        let mut access = AccessFile::open(&path).unwrap();
        assert_eq!(access.write(b"one\n"), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\ntor\none\n");
        // Torn while open, as by a disk that is full for a while.
        fs::write(&path, "to").unwrap();
        access.reopen();
        assert_eq!(access.write(b"two\n"), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "to\ntwo\n");
    }

    #[test]
    fn lost_and_dropped_lines_share_one_report_limit() {
        let mut access = AccessFile::open(Path::new("/dev/full")).unwrap();
        access.report_dropped(7);
        assert_eq!(access.dropped, 0, "reported at once");
        access.report_dropped(2);
        access.report_dropped(3);
        assert_eq!(access.write(b"one\ntwo\n"), 2);
        let lost = access.lost.as_ref().map(|&(lines, _)| lines);
        assert_eq!((access.dropped, lost), (5, Some(2)), "these wait for the next time");
    }
}
