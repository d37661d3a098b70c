//! Writes lines to an output that may fail: lost lines are counted, and a torn line is ended before the next one.

use std::io::{self, Write};

pub(super) struct Lines<W> {
    to: W,
    /// The last write failed within a line.
    is_torn: bool,
}

impl<W: Write> Lines<W> {
    /// Returns lines to `to`; `is_torn` must be true when it ends within a line already.
    pub(super) fn new(to: W, is_torn: bool) -> Self {
        Self { to, is_torn }
    }

    /// Writes whole lines; an error carries how many of them are lost.
    pub(super) fn write(&mut self, batch: &[u8]) -> Result<(), (u64, io::Error)> {
        let (written, result) =
            self.heal().map_or_else(|error| (0, Err(error)), |()| write_until_error(&mut self.to, batch));
        self.is_torn |= batch[..written].last().is_some_and(|&last| last != b'\n');
        result.map_err(|error| (lines_of(&batch[written..]), error))
    }

    /// Ends a torn line, so that the next one can be read.
    pub(super) fn heal(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.to.write_all(b"\n")?;
            self.is_torn = false;
        }
        Ok(())
    }
}

/// Returns the number of bytes written, and the error that stopped the rest.
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

/// Returns the number of lines that end in `bytes`: the rest of a torn line counts.
fn lines_of(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Accepts this many bytes and then no more.
    #[derive(Clone, Default)]
    pub(in crate::logging) struct Room(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Room {
        pub(in crate::logging) fn make(&self, bytes: usize) {
            self.0.lock().unwrap().0 = bytes;
        }

        pub(in crate::logging) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (left, taken) = &mut *self.0.lock().unwrap();
            let fits = (*left).min(bytes.len());
            *left -= fits;
            taken.extend_from_slice(&bytes[..fits]);
            if fits == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(fits) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_fits_only_in_part_is_lost_and_ended_before_the_next_one() {
        for (bytes, lost, text) in [
            (0, 2, "six\n"),
            (3, 2, "one\nsix\n"),
            (4, 1, "one\nsix\n"),
            (6, 1, "one\ntw\nsix\n"),
            (8, 0, "one\ntwo\nsix\n"),
        ] {
            let room = Room::default();
            room.make(bytes);
            let mut lines = Lines::new(room.clone(), false);
            let reported = lines.write(b"one\ntwo\n").map_or_else(|(lines, _)| lines, |()| 0);
            assert_eq!(reported, lost, "room for {bytes}");
            room.make(100);
            lines.write(b"six\n").unwrap();
            assert_eq!(room.text(), text, "room for {bytes}");
        }
    }
}
