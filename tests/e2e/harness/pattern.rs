//! Bytes that know their place: each follows from the key of its stream and its position in it.
//! A byte that is missing, doubled, out of place or of another stream is found where it stands.

/// One stream, up to a position.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    key: u64,
    position: usize,
}

impl Pattern {
    pub(crate) fn new(key: u64) -> Self {
        Self { key, position: 0 }
    }

    /// Writes what comes next, without moving on.
    pub(crate) fn peek(&self, buffer: &mut [u8]) {
        let mut next = self.clone();
        next.each_run(buffer.len(), |range, run| buffer[range].copy_from_slice(run));
    }

    pub(crate) fn skip(&mut self, bytes: usize) {
        self.position += bytes;
    }

    /// Moves on over `bytes`, which must be what comes next.
    pub(crate) fn check(&mut self, bytes: &[u8]) {
        let (start, key) = (self.position, self.key);
        self.each_run(bytes.len(), |range, run| {
            if bytes[range.clone()] != *run {
                let at = start + range.start;
                panic!("stream {key}: near byte {at} came {:x?}, not {run:x?}", &bytes[range]);
            }
        });
    }

    /// Cuts the next `len` bytes into the runs that come from one word.
    fn each_run(&mut self, len: usize, mut visit: impl FnMut(std::ops::Range<usize>, &[u8])) {
        let mut done = 0;
        while done < len {
            let offset = self.position % 8;
            let run = (8 - offset).min(len - done);
            let word = mix(mix(self.key) ^ (self.position / 8) as u64).to_le_bytes();
            visit(done..done + run, &word[offset..offset + run]);
            done += run;
            self.position += run;
        }
    }
}

/// The finaliser of splitmix64.
pub(crate) fn mix(value: u64) -> u64 {
    let x = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[test]
fn a_pattern_is_the_same_however_it_is_cut() {
    let mut whole = [0; 100];
    Pattern::new(7).peek(&mut whole);
    for cut in 0..whole.len() {
        let mut reader = Pattern::new(7);
        reader.check(&whole[..cut]);
        reader.check(&whole[cut..]);
    }
}

#[test]
#[should_panic(expected = "near byte 10")]
fn a_missing_byte_is_found() {
    let mut whole = [0; 100];
    Pattern::new(7).peek(&mut whole);
    let mut reader = Pattern::new(7);
    reader.check(&whole[..10]);
    reader.check(&whole[11..]);
}

#[test]
#[should_panic(expected = "stream 7: near byte 0")]
fn a_foreign_byte_is_found() {
    let mut foreign = [0; 1];
    Pattern::new(8).peek(&mut foreign);
    Pattern::new(7).check(&foreign);
}
