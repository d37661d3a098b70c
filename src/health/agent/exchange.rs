//! One exchange with an agent, as a conversation without a socket.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use super::answer::{Answer, Outcome};
use super::{AgentFault, Said};
use crate::base::address::Address;
use crate::config::agent::{Agent, AgentQuestion, BACKEND_PLACEHOLDER};
use crate::health::{Cause, Conversation, ProbeStep, Step};

/// One exchange in progress.
#[derive(Debug)]
pub struct AgentExchange {
    phase: Phase,
    request: Vec<u8>,
    sent: usize,
    answer: Answer,
    /// The error that ended sending. An answer may still wait to be read, and decides if it does.
    broken: Option<Cause>,
}

#[derive(Debug)]
enum Phase {
    Dialing,
    Sending,
    Receiving,
    Finished(Outcome),
}

/// Returns the address of the agent of a backend at `backend`.
pub fn agent_target(agent: &Agent, backend: &Address) -> Address {
    let Address::Ip(mut address) = *backend;
    if let Some(ip) = agent.address {
        address.set_ip(ip);
    }
    address.set_port(agent.port);
    address.into()
}

impl AgentExchange {
    /// Returns an exchange about the backend called `backend` that starts by dialing `target`.
    pub fn new(agent: &Agent, backend: &str, target: &Address) -> Self {
        let (request, answer) = match &agent.question {
            AgentQuestion::Tcp { send } => (send.replace(BACKEND_PLACEHOLDER, backend), Answer::bare()),
            AgentQuestion::Http { path, host } => {
                let path = path.replace(BACKEND_PLACEHOLDER, backend);
                (get(&path, host.as_deref(), target), Answer::http())
            }
        };
        Self { phase: Phase::Dialing, request: request.into_bytes(), sent: 0, answer, broken: None }
    }

    /// Returns the result, once there is one.
    pub fn outcome(&self) -> Option<Result<&Said, &AgentFault>> {
        match &self.phase {
            Phase::Finished(outcome) => Some(outcome.as_ref()),
            Phase::Dialing | Phase::Sending | Phase::Receiving => None,
        }
    }
}

impl Conversation for AgentExchange {
    fn next_step(&self) -> Step<'_> {
        match &self.phase {
            Phase::Dialing => Step::Dial,
            Phase::Sending => Step::Send(&self.request[self.sent..]),
            Phase::Receiving => Step::Receive,
            Phase::Finished(_) => Step::Finished(Ok(())),
        }
    }

    fn exchanged_data(&self) -> bool {
        self.sent > 0 || !self.answer.is_empty()
    }

    fn on_connected(&mut self) {
        if matches!(self.phase, Phase::Dialing) {
            self.phase = self.after_sending();
        }
        self.check_invariants();
    }

    fn on_self_connect(&mut self) {
        if matches!(self.phase, Phase::Dialing) {
            self.fail(Cause::SelfConnect);
        }
    }

    fn on_sent(&mut self, count: usize) {
        if matches!(self.phase, Phase::Sending) {
            self.sent = self.request.len().min(self.sent.saturating_add(count));
            self.phase = self.after_sending();
        }
        self.check_invariants();
    }

    fn on_received(&mut self, bytes: &[u8]) {
        if let Phase::Sending | Phase::Receiving = self.phase
            && let Some(outcome) = self.answer.push(bytes)
        {
            self.phase = Phase::Finished(outcome);
        }
        self.check_invariants();
    }

    fn on_eof(&mut self) {
        if let Phase::Sending | Phase::Receiving = self.phase {
            let outcome = self.answer.end();
            let broken = self.broken.take().filter(|_| outcome.is_err());
            self.phase = Phase::Finished(broken.map_or(outcome, |cause| Err(cause.into())));
        }
        self.check_invariants();
    }

    fn on_failed(&mut self, kind: ErrorKind) {
        match self.phase {
            Phase::Dialing => self.fail(Cause::of(kind, ProbeStep::Connecting)),
            // An agent may answer, close and so reset the connection while bytes are still being sent: read before
            // judging the error.
            Phase::Sending => {
                self.broken = Some(Cause::of(kind, ProbeStep::Sending));
                self.phase = Phase::Receiving;
            }
            Phase::Receiving => self.fail(Cause::of(kind, ProbeStep::Receiving)),
            Phase::Finished(_) => {}
        }
        self.check_invariants();
    }

    fn on_timeout(&mut self, limit: Duration) {
        match self.phase {
            Phase::Dialing => self.fail(Cause::TimedOut { limit, doing: ProbeStep::Connecting }),
            Phase::Sending => self.fail(Cause::TimedOut { limit, doing: ProbeStep::Sending }),
            Phase::Receiving => self.fail(Cause::TimedOut { limit, doing: ProbeStep::Receiving }),
            Phase::Finished(_) => {}
        }
        self.check_invariants();
    }
}

impl AgentExchange {
    /// Ends in failure. The first error is kept: it is closest to the cause.
    fn fail(&mut self, cause: Cause) {
        self.phase = Phase::Finished(Err(self.broken.take().unwrap_or(cause).into()));
    }

    fn after_sending(&self) -> Phase {
        if self.sent == self.request.len() { Phase::Receiving } else { Phase::Sending }
    }

    fn check_invariants(&self) {
        debug_assert!(self.sent <= self.request.len());
        debug_assert!(!matches!(self.phase, Phase::Sending) || self.sent < self.request.len());
    }
}

/// HTTP/1.0: the server must not answer in chunks (RFC 9112, 6.1), and closes.
fn get(path: &str, host: Option<&str>, target: &Address) -> String {
    let Address::Ip(target) = target;
    // A scope such as %eth0 means nothing to the agent.
    let address = SocketAddr::new(target.ip(), target.port()).to_string();
    let host = host.unwrap_or(&address);
    let agent = concat!("l4lb/", env!("CARGO_PKG_VERSION"));
    format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: {agent}\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::config::agent::OnLost;

    const TARGET: &str = "10.0.0.1:9707";
    const LIMIT: Duration = Duration::from_secs(1);

    fn settings(question: AgentQuestion) -> Agent {
        Agent {
            question,
            written: BTreeMap::new(),
            address: None,
            port: 9707,
            interval: LIMIT,
            timeout: LIMIT,
            on_lost: OnLost::Keep,
        }
    }

    fn exchange(question: AgentQuestion) -> AgentExchange {
        AgentExchange::new(&settings(question), "a", &TARGET.parse::<SocketAddr>().unwrap().into())
    }

    fn tcp(send: &str) -> AgentExchange {
        exchange(AgentQuestion::Tcp { send: send.into() })
    }

    fn http() -> AgentExchange {
        exchange(AgentQuestion::Http { path: "/of/{backend}".into(), host: None })
    }

    /// The result in words.
    fn sentence(exchange: &AgentExchange) -> String {
        match exchange.outcome() {
            None => "undecided".to_owned(),
            Some(Ok(said)) => format!("{:?}", said.advice.health),
            Some(Err(fault)) => fault.to_string(),
        }
    }

    #[test]
    fn a_silent_question_waits_for_the_line_at_once() {
        let mut agent = tcp("");
        assert_eq!(agent.next_step(), Step::Dial);
        agent.on_connected();
        assert_eq!(agent.next_step(), Step::Receive);
        agent.on_received(b"up");
        assert_eq!(sentence(&agent), "undecided");
        agent.on_received(b"\r\nrest");
        assert_eq!((sentence(&agent).as_str(), agent.next_step()), ("Some(Up)", Step::Finished(Ok(()))));
    }

    #[test]
    fn a_question_may_name_the_backend() {
        let mut agent = tcp("status {backend}\n");
        agent.on_connected();
        assert_eq!(agent.next_step(), Step::Send(b"status a\n"));
        agent.on_sent(7);
        assert_eq!(agent.next_step(), Step::Send(b"a\n"));
        agent.on_sent(2);
        assert_eq!(agent.next_step(), Step::Receive);
        let mut agent = http();
        agent.on_connected();
        let version = env!("CARGO_PKG_VERSION");
        let request =
            format!("GET /of/a HTTP/1.0\r\nHost: 10.0.0.1:9707\r\nUser-Agent: l4lb/{version}\r\n\r\n");
        assert_eq!(agent.next_step(), Step::Send(request.as_bytes()));
    }

    #[test]
    fn an_answer_before_the_end_of_the_question_counts() {
        let mut agent = tcp("a long question");
        agent.on_connected();
        agent.on_failed(ErrorKind::ConnectionReset);
        agent.on_received(b"down\n");
        assert_eq!(sentence(&agent), "Some(Down)");
        let mut agent = tcp("a long question");
        agent.on_connected();
        agent.on_failed(ErrorKind::ConnectionReset);
        agent.on_eof();
        assert_eq!(sentence(&agent), "connection reset while sending");
    }

    #[test]
    fn each_failure_says_what_was_under_way() {
        let connected = || {
            let mut agent = tcp("");
            agent.on_connected();
            agent
        };
        type Report = fn(&mut AgentExchange);
        let cases: [(AgentExchange, Report, &str); 6] = [
            (tcp(""), |agent| agent.on_failed(ErrorKind::ConnectionRefused), "connection refused"),
            (tcp(""), AgentExchange::on_self_connect, "connected to itself"),
            (tcp(""), |agent| agent.on_timeout(LIMIT), "timed out after 1s while connecting"),
            (connected(), |agent| agent.on_timeout(LIMIT), "timed out after 1s while waiting for the answer"),
            (
                connected(),
                |agent| agent.on_failed(ErrorKind::ConnectionReset),
                "connection reset while waiting for the answer",
            ),
            (
                connected(),
                |agent| {
                    agent.on_received(b"do");
                    agent.on_eof();
                },
                "closed before the end of the line: got \"do\"",
            ),
        ];
        for (mut agent, report, expected) in cases {
            report(&mut agent);
            assert_eq!(sentence(&agent), expected);
        }
    }

    #[test]
    fn an_agent_is_at_the_backend_or_at_one_address_for_all() {
        let mut agent = settings(AgentQuestion::Tcp { send: String::new() });
        let backend = "10.0.0.5:80".parse::<SocketAddr>().unwrap().into();
        assert_eq!(agent_target(&agent, &backend), ([10, 0, 0, 5], 9707).into());
        agent.address = Some([10, 0, 0, 9].into());
        assert_eq!(agent_target(&agent, &backend), ([10, 0, 0, 9], 9707).into());
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
            4 => vec(any::<u8>(), 0..100).prop_map(Report::Received),
            2 => Just(Report::Received(b"75% up\n".to_vec())),
            1 => Just(Report::Eof),
            1 => Just(Report::Failed),
            1 => Just(Report::Timeout),
        ]
    }

    proptest! {
        #[test]
        fn no_reports_in_any_order_panic_or_change_a_result(reports in vec(report(), 0..12)) {
            for mut agent in [tcp(""), tcp("hello\n"), http()] {
                for report in &reports {
                    let before = agent.outcome().map(|outcome| (outcome.cloned()).map_err(Clone::clone));
                    match report {
                        Report::Connected => agent.on_connected(),
                        Report::SelfConnect => agent.on_self_connect(),
                        Report::Sent(count) => agent.on_sent(*count),
                        Report::Received(bytes) => agent.on_received(bytes),
                        Report::Eof => agent.on_eof(),
                        Report::Failed => agent.on_failed(ErrorKind::ConnectionReset),
                        Report::Timeout => agent.on_timeout(LIMIT),
                    }
                    if let Some(before) = before {
                        let after = agent.outcome().map(|outcome| outcome.cloned().map_err(Clone::clone));
                        prop_assert_eq!(after, Some(before));
                    }
                }
            }
        }
    }
}
