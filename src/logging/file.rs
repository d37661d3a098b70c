//! The access log: a file that is appended to, and opened again when it has been renamed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::token_bucket::TokenBucket;
use crate::logging::queue::Output;
use crate::sys::{self, Clock};

/// Lines that cannot be written are told at most that often.
const TELL_PERIOD: Duration = Duration::from_secs(10);

/// The open file. Where it cannot be written, lines are lost; nobody waits for a full disk.
pub(super) struct AccessFile {
    path: PathBuf,
    file: File,
    /// The file ends within a line, since an error.
    is_torn: bool,
    clock: Clock,
    tell: TokenBucket,
    /// Lines lost and not told of yet.
    untold: u64,
}

impl AccessFile {
    /// The file at `path`, which is made if there is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let clock = Clock::start();
        Ok(Self {
            path: path.to_owned(),
            file: sys::open_log(path)?,
            is_torn: false,
            clock,
            tell: TokenBucket::new(1, TELL_PERIOD, clock.now()),
            untold: 0,
        })
    }

    /// Ends the line that an error has torn, so that the next one can be read.
    fn heal(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        Ok(())
    }

    /// Tells of lines lost to `error`, now or with the next ones.
    fn tell_lost(&mut self, lines: u64, error: &io::Error) {
        self.untold += lines;
        if self.tell.take(self.clock.now()).is_some() {
            let (path, lines) = (self.path.display(), std::mem::take(&mut self.untold));
            log::error!(path:%, lines, error:%; "the access log cannot be written, lines are lost");
        }
    }
}

impl Output for AccessFile {
    fn write(&mut self, batch: &[u8]) -> u64 {
        let (written, result) =
            self.heal().map_or_else(|error| (0, Err(error)), |()| write_until_error(&mut self.file, batch));
        let Err(error) = result else { return 0 };
        self.is_torn |= batch[..written].last().is_some_and(|&last| last != b'\n');
        let lost = lines_of(&batch[written..]);
        self.tell_lost(lost, &error);
        lost
    }

    fn reopen(&mut self) {
        match sys::open_log(&self.path) {
            Ok(file) => {
                (self.file, self.is_torn) = (file, false);
                log::info!(path:% = self.path.display(); "access log opened again");
            }
            Err(error) => {
                let path = self.path.display();
                log::error!(path:%, error:%; "cannot open the access log again, lines go on into the old file");
            }
        }
    }

    fn tell_dropped(&mut self, lines: u64) {
        log::warn!(path:% = self.path.display(), lines; "lines of the access log were dropped: its disk did not keep up");
    }
}

/// How many bytes were written, and what kept the others from it.
fn write_until_error(to: &mut impl Write, batch: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < batch.len() {
        match to.write(&batch[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Lines that end in `bytes`: of one that was torn, the rest counts.
fn lines_of(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum()
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
        assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}: nobody else may read who talks to whom");
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

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, secret) = (dir.path().join("access.log"), dir.path().join("secret"));
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(AccessFile::open(&path).is_err());
        assert!(!secret.exists());
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted() {
        let mut access = AccessFile::open(Path::new("/dev/full")).unwrap();
        assert_eq!(access.write(b"one\ntwo\n"), 2);
    }

    /// Takes so many bytes and then no more.
    struct Room(usize);

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = self.0.min(bytes.len());
            self.0 -= fits;
            if fits == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(fits) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_fits_only_in_part_is_lost() {
        for (room, kept, lost) in [(0, 0, 2), (3, 3, 2), (4, 4, 1), (6, 6, 1), (8, 8, 0)] {
            let (written, result) = write_until_error(&mut Room(room), b"one\ntwo\n");
            assert_eq!((written, lines_of(&b"one\ntwo\n"[written..])), (kept, lost), "room for {room}");
            assert_eq!(result.is_ok(), lost == 0, "room for {room}");
        }
    }
}
