//! Cuts the stream of a watch into its messages: the gateway ends each with a line break and has none within. The
//! pieces of the stream end anywhere.

use crate::config::one_line;
use crate::etcd::messages::{Fault, Streamed, Watched};

/// Longest message. etcd cuts longer ones into fragments of about 1.5 MiB, if its own limit is not raised.
pub const MESSAGE_LEN_MAX: usize = 16 << 20;

/// What has arrived of a stream and was not taken yet.
#[derive(Debug, Default)]
pub struct Stream {
    bytes: Vec<u8>,
    /// Where the next message begins.
    begin: usize,
    /// In front of this there is no end of a message.
    searched: usize,
}

impl Stream {
    /// Adds a piece. All messages must have been taken before: what is left of one is bounded.
    ///
    /// Fails when the message that it belongs to is too long.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), String> {
        self.bytes.drain(..self.begin);
        self.searched -= self.begin;
        self.begin = 0;
        if self.bytes.len() + piece.len() > MESSAGE_LEN_MAX {
            return Err(format!("a message is longer than {} MiB", MESSAGE_LEN_MAX >> 20));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Returns the next message that is whole, if there is one. Fails at an error of the server, and at what is no
    /// message; the stream must not be used then.
    pub fn take(&mut self) -> Option<Result<Watched, String>> {
        while let Some(len) = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n') {
            let end = self.searched + len;
            let line = &self.bytes[self.begin..end];
            let message = (!line.trim_ascii().is_empty()).then(|| read(line));
            (self.begin, self.searched) = (end + 1, end + 1);
            if message.is_some() {
                return message;
            }
        }
        self.searched = self.bytes.len();
        None
    }

    /// Returns why the stream has ended, by what is left of it: the last message may lack its line break.
    pub fn at_end(&self) -> String {
        match read(&self.bytes[self.begin..]) {
            Err(why) if !self.bytes[self.begin..].trim_ascii().is_empty() => why,
            Ok(_) | Err(_) => "the server has ended the watch".to_owned(),
        }
    }
}

/// Reads one message. Fails also when it ends the watch.
fn read(line: &[u8]) -> Result<Watched, String> {
    let message: Streamed<Watched> =
        serde_json::from_slice(line).map_err(|error| one_line(&format!("no message of a watch: {error}")))?;
    match message {
        Streamed::Error(Fault { message, code }) if message.is_empty() => {
            Err(format!("the server has ended the watch: code {code}"))
        }
        Streamed::Error(Fault { message, .. }) => Err(one_line(&message)),
        Streamed::Result(watched) if watched.compact_revision > 0 => {
            Err(format!("compacted at revision {}", watched.compact_revision))
        }
        Streamed::Result(watched) if watched.canceled => {
            Err(one_line(&format!("the server has ended the watch: {}", watched.cancel_reason)))
        }
        Streamed::Result(watched) => Ok(watched),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::etcd::messages::{Change, encode};

    /// A message of each kind that a watch has: one that has begun, events, progress.
    fn message(kind: u8) -> String {
        match kind % 4 {
            0 => "{\"result\":{\"header\":{\"revision\":\"3\"},\"created\":true}}\n".into(),
            1 => {
                let (key, value) = (encode(b"/a/1"), encode("{\"address\": \"\u{e4}\n\"}".as_bytes()));
                format!(
                    "{{\"result\":{{\"events\":[{{\"kv\":{{\"key\":\"{key}\",\"value\":\"{value}\"}}}}]}}}}\n"
                )
            }
            2 => format!(
                "{{\"result\":{{\"events\":[{{\"type\":\"DELETE\",\"kv\":{{\"key\":\"{}\"}}}}]}}}}\n",
                encode(b"/a/1")
            ),
            _ => "{\"result\":{\"header\":{\"revision\":\"9\"},\"watch_id\":\"-1\"}}\n\n".into(),
        }
    }

    /// All messages of `bytes`, which come in pieces that end at `cuts`, and the error behind them.
    fn taken(bytes: &[u8], cuts: &[usize]) -> (Vec<Watched>, Option<String>) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let (mut stream, mut all, mut from) = (Stream::default(), Vec::new(), 0);
        for cut in cuts {
            if let Err(why) = stream.push(&bytes[from..cut]) {
                return (all, Some(why));
            }
            from = cut;
            while let Some(message) = stream.take() {
                match message {
                    Ok(message) => all.push(message),
                    Err(why) => return (all, Some(why)),
                }
            }
        }
        (all, None)
    }

    proptest! {
        #[test]
        fn where_the_pieces_end_makes_no_difference(
            kinds in prop::collection::vec(0_u8..4, 0..8),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
            spoilt in prop::option::of((any::<usize>(), any::<u8>())),
        ) {
            let mut bytes: Vec<u8> = kinds.iter().flat_map(|&kind| message(kind).into_bytes()).collect();
            if let (Some((at, byte)), false) = (spoilt, bytes.is_empty()) {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let whole = taken(&bytes, &[]);
            prop_assert_eq!(taken(&bytes, &cuts), whole.clone());
            if spoilt.is_none() {
                prop_assert_eq!((whole.0.len(), whole.1), (kinds.len(), None));
            }
        }
    }

    #[test]
    fn every_byte_may_come_alone() {
        let bytes: Vec<u8> = (0..4).flat_map(|kind| message(kind).into_bytes()).collect();
        let cuts: Vec<usize> = (0..bytes.len()).collect();
        let (all, error) = taken(&bytes, &cuts);
        assert_eq!((all.len(), error), (4, None));
        assert_eq!(all[2].events[0].change, Change::Delete);
    }

    #[test]
    fn what_ends_a_watch_is_named() {
        for (text, expected) in [
            ("{\"result\":{\"canceled\":true,\"compact_revision\":\"6\"}}\n", "compacted at revision 6"),
            ("{\"result\":{\"canceled\":true,\"cancel_reason\":\"no\\nleader\"}}\n", "ended the watch: no"),
            (
                "{\"error\":{\"grpc_code\":14,\"message\":\"etcdserver: no leader\"}}\n",
                "etcdserver: no leader",
            ),
            ("{\"result\":{\"events\":[{\"kv\":{\"key\":\"*\"}}]}}\n", "not base64"),
            ("{\"result\":\n", "no message of a watch: EOF"),
            // It was a failure without words.
            ("{\"error\":{\"grpc_code\":14}}\n", "ended the watch: code 14"),
            ("<html>\n", "no message of a watch"),
            ("{}\n", "no message of a watch"),
        ] {
            let (all, error) = taken(text.as_bytes(), &[3]);
            assert!(all.is_empty(), "{text}");
            assert!(error.as_ref().is_some_and(|error| error.contains(expected)), "{text}: {error:?}");
        }
        let mut stream = Stream::default();
        stream.push(b"{\"error\":{\"message\":\"too many\"}}").unwrap();
        assert!(stream.take().is_none());
        assert_eq!(stream.at_end(), "too many");
        assert_eq!(Stream::default().at_end(), "the server has ended the watch");
    }

    #[test]
    fn a_message_without_an_end_is_given_up() {
        let mut stream = Stream::default();
        let piece = vec![b' '; 1 << 20];
        let pushed = (0..=16).map(|_| {
            let pushed = stream.push(&piece);
            assert!(stream.take().is_none());
            pushed
        });
        let failed: Vec<bool> = pushed.map(|pushed| pushed.is_err()).collect();
        assert_eq!(failed.iter().position(|&failed| failed), Some(16), "the first byte beyond");
    }
}
