//! One check of one backend, as a conversation without a socket.
//!
//! What is said is up to the [`Exchange`]; the probe has the dial, the bytes that the kernel has not accepted yet, and
//! the errors of the connection.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::base::address::Address;
use crate::config::model::{BackendCheck, Check};
use crate::health::cause::{Cause, ProbeStep};
use crate::health::conversation::{Conversation, Step};
use crate::health::exchange::{Exchange, Progress};
use crate::health::protocols;
use crate::health::recording::Moment;
use crate::tls::Certificate;

/// A check in progress: what to send, and the answer so far. Does no I/O.
#[derive(Debug)]
pub struct Probe {
    phase: Phase,
    exchange: Box<dyn Exchange>,
    /// All bytes that the header and the exchange have sent or will send, and how many of them the kernel has accepted.
    outbox: Vec<u8>,
    sent: usize,
    has_received: bool,
    /// The error that ended sending. An answer may still wait to be read, and decides if it does.
    broken: Option<Cause>,
}

#[derive(Debug)]
enum Phase {
    Dialing,
    /// Sends as long as there are bytes to send, and receives then.
    Talking,
    /// The result is known; the last bytes, which end the exchange as its protocol wants, are still being sent.
    TakingLeave(Result<(), Cause>),
    Finished(Result<(), Cause>),
}

/// Returns the address that a check of `backend` connects to: its own settings come before the `port` of the check.
pub fn target(port: Option<u16>, of_backend: &BackendCheck, backend: &Address) -> Address {
    let Address::Ip(mut address) = *backend;
    if let Some(ip) = of_backend.address {
        address = SocketAddr::new(ip, address.port());
    }
    if let Some(port) = of_backend.port.or(port) {
        address.set_port(port);
    }
    address.into()
}

impl Probe {
    /// Returns a check that starts by dialing `target`; `None` when there is nothing to check.
    pub fn new(check: &Check, target: &Address) -> Option<Self> {
        protocols::exchange_of(check, target, None).map(Self::of)
    }

    /// Same as [`Probe::new`], for a check that sends what it does to `moments` as well.
    pub fn recorded(check: &Check, target: &Address, moments: &Sender<Moment>) -> Option<Self> {
        protocols::exchange_of(check, target, Some(moments)).map(Self::of)
    }

    fn of(exchange: Box<dyn Exchange>) -> Self {
        let (phase, outbox) = (Phase::Dialing, Vec::new());
        Self { phase, exchange, outbox, sent: 0, has_received: false, broken: None }
    }

    /// Sends these bytes in front of all others. Must be called before the dial has succeeded.
    pub fn send_first(&mut self, header: &[u8]) {
        debug_assert!(matches!(self.phase, Phase::Dialing) && self.outbox.is_empty());
        self.outbox.extend_from_slice(header);
    }

    /// Returns whether its next step is expensive: a part of a TLS handshake.
    pub fn is_expensive(&self) -> bool {
        self.exchange.is_expensive()
    }

    /// Returns the certificate that the backend has shown, once it is verified.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.exchange.certificate()
    }
}

impl Conversation for Probe {
    fn next_step(&self) -> Step<'_> {
        match &self.phase {
            Phase::Dialing => Step::Dial,
            Phase::Talking if self.is_sending() => Step::Send(self.unsent()),
            Phase::Talking => Step::Receive,
            Phase::TakingLeave(_) => Step::Send(self.unsent()),
            Phase::Finished(result) => Step::Finished(result.as_ref().copied()),
        }
    }

    fn exchanged_data(&self) -> bool {
        self.sent > 0 || self.has_received
    }

    fn on_connected(&mut self) {
        if matches!(self.phase, Phase::Dialing) {
            self.phase = Phase::Talking;
            let progress = self.exchange.start(&mut self.outbox);
            self.advance(progress);
        }
        self.check_invariants();
    }

    fn on_self_connect(&mut self) {
        if matches!(self.phase, Phase::Dialing) {
            self.phase = Phase::Finished(Err(Cause::SelfConnect));
        }
        self.check_invariants();
    }

    fn on_sent(&mut self, count: usize) {
        if matches!(self.next_step(), Step::Send(_)) {
            self.sent = self.outbox.len().min(self.sent.saturating_add(count));
            if self.unsent().is_empty() {
                self.leave();
            }
        }
        self.check_invariants();
    }

    fn on_received(&mut self, bytes: &[u8]) {
        if matches!(self.phase, Phase::Talking) {
            self.has_received |= !bytes.is_empty();
            let progress = self.exchange.on_bytes(bytes, &mut self.outbox);
            self.advance(progress);
        }
        self.check_invariants();
    }

    fn on_eof(&mut self) {
        if matches!(self.phase, Phase::Talking) {
            let cause = self.exchange.on_eof();
            self.fail(cause);
        }
        self.leave();
        self.check_invariants();
    }

    fn on_failed(&mut self, kind: ErrorKind) {
        match self.phase {
            Phase::Dialing => self.fail(Cause::of(kind, ProbeStep::Connecting)),
            // A backend may answer, close and so reset the connection while bytes are still being sent: read before
            // judging the error.
            Phase::Talking if self.is_sending() => {
                self.broken = Some(self.at(Cause::of(kind, ProbeStep::Sending)));
            }
            Phase::Talking => self.fail(self.at(Cause::of(kind, ProbeStep::Receiving))),
            Phase::TakingLeave(_) | Phase::Finished(_) => self.leave(),
        }
        self.check_invariants();
    }

    fn on_timeout(&mut self, limit: Duration) {
        match self.phase {
            Phase::Dialing => self.fail(Cause::TimedOut { limit, doing: ProbeStep::Connecting }),
            Phase::Talking => {
                let doing = if self.is_sending() { ProbeStep::Sending } else { ProbeStep::Receiving };
                self.fail(self.at(Cause::TimedOut { limit, doing }));
            }
            Phase::TakingLeave(_) | Phase::Finished(_) => self.leave(),
        }
        self.check_invariants();
    }
}

impl Probe {
    /// Does what the exchange has decided.
    fn advance(&mut self, progress: Progress) {
        match progress {
            Progress::More => {}
            Progress::Passed => self.phase = Phase::TakingLeave(Ok(())),
            Progress::Failed(cause) => self.phase = Phase::TakingLeave(Err(cause)),
        }
        if self.unsent().is_empty() || self.broken.is_some() {
            self.leave();
        }
    }

    /// Ends in failure. The first error is kept: it is closest to the cause.
    fn fail(&mut self, cause: Cause) {
        self.phase = Phase::Finished(Err(self.broken.take().unwrap_or(cause)));
    }

    /// Ends with the result, if there is one, though the last bytes may not be sent.
    fn leave(&mut self) {
        if let Phase::TakingLeave(result) = &mut self.phase {
            self.phase = Phase::Finished(std::mem::replace(result, Ok(())));
        }
    }

    /// Returns the cause with the place in the exchange at which it occurred.
    fn at(&self, cause: Cause) -> Cause {
        cause.at(self.exchange.place())
    }

    fn is_sending(&self) -> bool {
        self.broken.is_none() && !self.unsent().is_empty()
    }

    fn unsent(&self) -> &[u8] {
        &self.outbox[self.sent..]
    }

    fn check_invariants(&self) {
        debug_assert!(self.sent <= self.outbox.len());
        debug_assert!(!matches!(self.phase, Phase::TakingLeave(_)) || self.is_sending());
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Expect;

    const TARGET: &str = "10.0.0.1:80";
    const LIMIT: Duration = Duration::from_secs(1);

    /// A backend's side of a check, step by step.
    struct Script(Probe);

    fn check(check: &Check) -> Script {
        Script(Probe::new(check, &TARGET.parse::<SocketAddr>().unwrap().into()).unwrap())
    }

    fn tcp() -> Script {
        check(&Check::Tcp)
    }

    fn ping() -> Script {
        check(&Check::SendExpect { send: b"PING\r\n".to_vec(), expect: Expect::Prefix(b"+PONG".to_vec()) })
    }

    fn banner() -> Script {
        check(&Check::SendExpect { send: Vec::new(), expect: Expect::Contains(b"ready".to_vec()) })
    }

    fn http(host: Option<&str>) -> Script {
        check(&Check::Http { path: "/health".into(), host: host.map(Into::into), status: 200 })
    }

    fn smtp() -> Script {
        check(&Check::Smtp { domain: "lb".into() })
    }

    impl Script {
        fn reports(mut self, report: impl FnOnce(&mut Probe)) -> Self {
            report(&mut self.0);
            self
        }

        fn connects(self) -> Self {
            self.expects(&Step::Dial).reports(Probe::on_connected)
        }

        fn takes_all(self) -> Self {
            self.reports(|probe| probe.on_sent(usize::MAX)).expects(&Step::Receive)
        }

        fn answers(self, bytes: &str) -> Self {
            self.reports(|probe| probe.on_received(bytes.as_bytes()))
        }

        fn fins(self) -> Self {
            self.reports(Probe::on_eof)
        }

        fn resets(self) -> Self {
            self.reports(|probe| probe.on_failed(ErrorKind::ConnectionReset))
        }

        fn stalls(self) -> Self {
            self.reports(|probe| probe.on_timeout(LIMIT))
        }

        fn expects(self, step: &Step<'_>) -> Self {
            assert_eq!(self.0.next_step(), *step);
            self
        }

        fn succeeds(self) -> Self {
            self.expects(&Step::Finished(Ok(())))
        }

        fn fails(self, sentence: &str) -> Self {
            match self.0.next_step() {
                Step::Finished(Err(cause)) => assert_eq!(cause.to_string(), sentence),
                other @ (Step::Dial | Step::Send(_) | Step::Receive | Step::Finished(Ok(()))) => {
                    panic!("{other:?} instead of {sentence}")
                }
            }
            self
        }

        fn closes_with_fin(&self) -> bool {
            self.0.exchanged_data()
        }
    }

    #[test]
    fn a_tcp_check_passes_once_connected() {
        assert!(!tcp().connects().succeeds().closes_with_fin());
    }

    #[test]
    fn a_failed_dial_reports_its_cause() {
        let cases = [
            (ErrorKind::ConnectionRefused, "connection refused"),
            (ErrorKind::HostUnreachable, "host unreachable while connecting"),
            (ErrorKind::NetworkUnreachable, "network unreachable while connecting"),
            (ErrorKind::ConnectionReset, "connection reset while connecting"),
            (ErrorKind::TimedOut, "timed out while connecting"),
        ];
        for (kind, sentence) in cases {
            let script = tcp().reports(|probe| probe.on_failed(kind)).fails(sentence);
            assert!(!script.closes_with_fin());
        }
        tcp().reports(Probe::on_self_connect).fails("connected to itself");
    }

    #[test]
    fn a_timeout_names_what_it_waited_for() {
        tcp().stalls().fails("timed out after 1s while connecting");
        ping().connects().stalls().fails("timed out after 1s while sending");
        ping().connects().takes_all().stalls().fails("timed out after 1s while waiting for the answer");
    }

    #[test]
    fn a_request_goes_out_in_as_many_pieces_as_the_kernel_wants() {
        ping()
            .connects()
            .expects(&Step::Send(b"PING\r\n"))
            .reports(|probe| probe.on_sent(2))
            .expects(&Step::Send(b"NG\r\n"))
            .reports(|probe| probe.on_sent(4))
            .expects(&Step::Receive);
    }

    #[test]
    fn the_answer_may_come_in_pieces() {
        let script =
            ping().connects().takes_all().answers("+P").expects(&Step::Receive).answers("ONG\r\n").succeeds();
        assert!(script.closes_with_fin());
    }

    #[test]
    fn a_wrong_answer_fails_at_its_first_wrong_byte() {
        let sentence = r#"answer does not start with "+PONG": got "-ERR""#;
        ping().connects().takes_all().answers("-ERR").fails(sentence);
    }

    #[test]
    fn a_check_may_send_nothing_and_wait_for_a_banner() {
        assert!(!banner().connects().expects(&Step::Receive).stalls().closes_with_fin());
        assert!(banner().connects().answers("220 ready\r\n").succeeds().closes_with_fin());
    }

    #[test]
    fn an_answer_followed_by_a_reset_is_judged_by_the_answer() {
        ping().connects().takes_all().answers("+PONG").resets().succeeds();
        let reset = "connection reset while waiting for the answer";
        ping().connects().takes_all().answers("+PO").resets().fails(reset);
    }

    #[test]
    fn an_answer_is_read_after_sending_has_failed() {
        ping().connects().resets().expects(&Step::Receive).answers("+PONG").succeeds();
        ping().connects().resets().fins().fails("connection reset while sending");
        ping().connects().resets().resets().fails("connection reset while sending");
    }

    #[test]
    fn an_end_without_an_answer_is_a_failure() {
        ping().connects().takes_all().fins().fails("closed before the answer was complete: got nothing");
    }

    #[test]
    fn a_get_names_its_host() {
        let request = |host: &str| {
            format!(
                "GET /health HTTP/1.1\r\nHost: {host}\r\nUser-Agent: l4lb/{}\r\nConnection: close\r\n\r\n",
                env!("CARGO_PKG_VERSION")
            )
        };
        http(None).connects().expects(&Step::Send(request(TARGET).as_bytes()));
        http(Some("web.test")).connects().expects(&Step::Send(request("web.test").as_bytes()));
    }

    #[test]
    fn an_http_check_ends_with_the_status_line() {
        http(None).connects().takes_all().answers("HTTP/1.1 200 OK\r\n").succeeds();
        let script = http(None).connects().takes_all().answers("HTTP/1.1 503 Busy\r\n");
        script.fails("expected status 200, got 503");
    }

    #[test]
    fn a_farewell_is_sent_behind_the_result() {
        let greeted = || smtp().connects().answers("220 hi\r\n").takes_all().answers("250 hi\r\n");
        greeted()
            .expects(&Step::Send(b"QUIT\r\n"))
            .reports(|probe| probe.on_sent(2))
            .expects(&Step::Send(b"IT\r\n"))
            .reports(|probe| probe.on_sent(4))
            .succeeds();
        greeted().stalls().succeeds();
        greeted().resets().succeeds();
        greeted().fins().succeeds();
        let refused = smtp().connects().answers("554 no\r\n").expects(&Step::Send(b"QUIT\r\n"));
        refused.stalls().fails(r#"greeting: the backend reports "554 no""#);
    }

    #[test]
    fn a_failure_names_the_message_that_was_missing() {
        smtp().connects().stalls().fails("greeting: timed out after 1s while waiting for the answer");
        let greeted = || smtp().connects().answers("220 hi\r\n");
        greeted().stalls().fails("EHLO: timed out after 1s while sending");
        greeted().takes_all().resets().fails("EHLO: connection reset while waiting for the answer");
        greeted().resets().fins().fails("EHLO: connection reset while sending");
    }

    #[test]
    fn a_header_goes_before_all_bytes_of_a_check_even_of_one_that_only_connects() {
        let with_header = |script: Script| script.reports(|probe| probe.send_first(b"PROXY\r\n"));
        with_header(ping()).connects().expects(&Step::Send(b"PROXY\r\nPING\r\n"));
        let sent = with_header(tcp())
            .connects()
            .expects(&Step::Send(b"PROXY\r\n"))
            .reports(|probe| probe.on_sent(3))
            .expects(&Step::Send(b"XY\r\n"))
            .reports(|probe| probe.on_sent(4))
            .succeeds();
        assert!(sent.closes_with_fin(), "a server sees the end of a connection, not a reset");
        with_header(tcp()).connects().resets().succeeds();
        with_header(smtp()).connects().takes_all().answers("220 hi\r\n").expects(&Step::Send(b"EHLO lb\r\n"));
        with_header(tcp())
            .reports(|probe| probe.on_failed(ErrorKind::ConnectionRefused))
            .fails("connection refused");
    }

    #[test]
    fn a_result_stands_whatever_is_reported_later() {
        tcp().connects().resets().stalls().fins().answers("late").succeeds();
        tcp().stalls().reports(Probe::on_connected).fails("timed out after 1s while connecting");
    }

    #[test]
    fn address_and_port_may_be_overridden() {
        let backend = TARGET.parse::<SocketAddr>().unwrap().into();
        let mut own = BackendCheck::default();
        assert_eq!(target(None, &own, &backend), backend);
        assert_eq!(target(Some(81), &own, &backend), ([10, 0, 0, 1], 81).into());
        own.port = Some(82);
        assert_eq!(target(Some(81), &own, &backend), ([10, 0, 0, 1], 82).into());
        own = BackendCheck { address: Some([0, 0, 0, 0, 0, 0, 0, 1].into()), ..BackendCheck::default() };
        assert_eq!(target(Some(81), &own, &backend), ([0, 0, 0, 0, 0, 0, 0, 1], 81).into());
        assert!(Probe::new(&Check::Off, &backend).is_none());
    }

    #[derive(Clone, Debug)]
    enum Report {
        Connected,
        SelfConnect,
        Sent(usize),
        Received(Vec<u8>),
        Eof,
        Failed,
        Timeout,
    }

    fn report() -> impl Strategy<Value = Report> {
        prop_oneof![
            4 => Just(Report::Connected),
            1 => Just(Report::SelfConnect),
            4 => (0usize..200).prop_map(Report::Sent),
            8 => vec(any::<u8>(), 0..9_000).prop_map(Report::Received),
            1 => Just(Report::Eof),
            1 => Just(Report::Failed),
            1 => Just(Report::Timeout),
        ]
    }

    proptest! {
        #[test]
        fn no_reports_in_any_order_panic_or_change_a_result(reports in vec(report(), 0..12)) {
            for Script(mut probe) in [tcp(), ping(), banner(), http(None), smtp()] {
                for report in &reports {
                    let before = match probe.next_step() {
                        Step::Finished(result) => Some(result.map_err(Clone::clone)),
                        Step::Dial | Step::Send(_) | Step::Receive => None,
                    };
                    match report {
                        Report::Connected => probe.on_connected(),
                        Report::SelfConnect => probe.on_self_connect(),
                        Report::Sent(count) => probe.on_sent(*count),
                        Report::Received(bytes) => probe.on_received(bytes),
                        Report::Eof => probe.on_eof(),
                        Report::Failed => probe.on_failed(ErrorKind::ConnectionReset),
                        Report::Timeout => probe.on_timeout(LIMIT),
                    }
                    if let Some(result) = before {
                        prop_assert_eq!(probe.next_step(), Step::Finished(result.as_ref().copied()));
                    }
                }
            }
        }
    }
}
