//! The stream of a watch of etcd: wherever its pieces end, it has the same messages and the same mistake.

use l4lb::etcd::messages::Watched;
use l4lb::etcd::stream::Stream;

use super::config::expect_one_line;

/// The first byte is the length of all pieces.
pub fn check(data: &[u8]) {
    let Some((&len, stream)) = data.split_first() else { return };
    let whole = read([stream].into_iter());
    assert_eq!(read(stream.chunks(usize::from(len).max(1))), whole);
    let (messages, end) = whole;
    expect_one_line(&end);
    assert!(messages.iter().all(|message| !message.canceled && message.compact_revision <= 0));
}

/// All messages, and why there are no more.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Watched>, String) {
    let (mut stream, mut messages) = (Stream::default(), Vec::new());
    for piece in pieces {
        if let Err(why) = stream.push(piece) {
            return (messages, why);
        }
        while let Some(message) = stream.take() {
            match message {
                Ok(message) => messages.push(message),
                Err(why) => return (messages, why),
            }
        }
    }
    (messages, stream.at_end())
}
