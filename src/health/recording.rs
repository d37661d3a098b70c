//! What an exchange sends, receives and waits for, as it happens: for a check that an operator runs and looks at. Inside
//! of TLS these are the plain bytes. Checks of workers are not recorded.

use std::sync::mpsc::Sender;

use crate::health::cause::{Cause, Place};
use crate::health::exchange::{Exchange, Progress};
use crate::health::expected::Expected;
use crate::tls::Certificate;

/// One thing that has happened in an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The connection is established, with TLS if the check has it.
    Begun,
    /// The exchange has given these bytes to the connection.
    Sent(Vec<u8>),
    /// It has received these bytes.
    Received(Vec<u8>),
    /// It waits for this from now on.
    Expects(Expected),
}

/// An exchange that sends its moments to its driver, which has the time.
#[derive(Debug)]
pub(super) struct Recorded {
    inner: Box<dyn Exchange>,
    moments: Sender<Moment>,
    expected: Option<Expected>,
}

impl Recorded {
    pub(super) fn new(inner: Box<dyn Exchange>, moments: Sender<Moment>) -> Self {
        Self { inner, moments, expected: None }
    }

    /// A driver that no longer listens misses nothing that it wants.
    fn record(&self, moment: Moment) {
        let _unwanted = self.moments.send(moment);
    }

    fn record_sent(&mut self, sent: &[u8], progress: &Progress) {
        if !sent.is_empty() {
            self.record(Moment::Sent(sent.to_vec()));
        }
        let expected = self.inner.expected().filter(|_| *progress == Progress::More);
        if let Some(expected) = expected
            && self.expected.as_ref() != Some(&expected)
        {
            self.record(Moment::Expects(expected.clone()));
            self.expected = Some(expected);
        }
    }
}

impl Exchange for Recorded {
    fn start(&mut self, out: &mut Vec<u8>) -> Progress {
        self.record(Moment::Begun);
        let before = out.len();
        let progress = self.inner.start(out);
        self.record_sent(&out[before..], &progress);
        progress
    }

    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Progress {
        self.record(Moment::Received(bytes.to_vec()));
        let before = out.len();
        let progress = self.inner.on_bytes(bytes, out);
        self.record_sent(&out[before..], &progress);
        progress
    }

    fn on_eof(&self) -> Cause {
        self.inner.on_eof()
    }

    fn place(&self) -> Option<Place> {
        self.inner.place()
    }

    fn expected(&self) -> Option<Expected> {
        self.inner.expected()
    }

    fn is_expensive(&self) -> bool {
        self.inner.is_expensive()
    }

    fn certificate(&self) -> Option<&Certificate> {
        self.inner.certificate()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::model::{Check, ScriptStep, Secret};
    use crate::health::{Conversation, Probe, Step, printable};

    #[test]
    fn a_recorded_check_is_the_same_check_and_says_what_it_does() {
        let step = |send: &str, expect: &str| ScriptStep { send: send.into(), expect: expect.into() };
        let check = Check::Script(vec![step("AUTH s3cret\r\n", "+OK"), step("PING\r\n", "+PONG s3cret")]);
        let target = "10.0.0.1:80".parse::<SocketAddr>().unwrap().into();
        let (moments, seen) = channel();
        let mut recorded = Probe::recorded(&check, &target, &moments).unwrap();
        let mut plain = Probe::new(&check, &target).unwrap();
        for probe in [&mut recorded, &mut plain] {
            probe.on_connected();
            assert_eq!(probe.next_step(), Step::Send(b"AUTH s3cret\r\n"));
            probe.on_sent(usize::MAX);
            probe.on_received(b"+O");
            probe.on_received(b"K");
            assert_eq!(probe.next_step(), Step::Send(b"PING\r\n"));
            probe.on_sent(usize::MAX);
            probe.on_received(b"+PONG s3cret");
            assert_eq!(probe.next_step(), Step::Finished(Ok(())));
        }
        let secrets = [Secret { variable: "WORD".into(), value: "s3cret".into() }];
        let shown = |moment: Moment| match moment {
            Moment::Begun => "begun".to_owned(),
            Moment::Sent(bytes) => format!("sent {}", printable(&bytes, &secrets, false)),
            Moment::Received(bytes) => format!("received {}", printable(&bytes, &secrets, false)),
            Moment::Expects(expected) => format!("expects {}", expected.in_words(&secrets)),
        };
        let seen: Vec<String> = seen.try_iter().map(shown).collect();
        assert_eq!(
            seen,
            [
                "begun",
                r"sent AUTH ${WORD}\r\n",
                r#"expects text with "+OK""#,
                "received +O",
                "received K",
                r"sent PING\r\n",
                r#"expects text with "+PONG ${WORD}""#,
                "received +PONG ${WORD}",
            ]
        );
    }
}
