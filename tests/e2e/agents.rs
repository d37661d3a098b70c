//! Agents on the wire: what they say, what follows from it, and what does not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use axum::http::Method;
use l4lb::api::{self, Admin, Health};

use crate::harness::daemon::Daemon;
use crate::harness::lab::IPV4;
use crate::harness::peer::until;

/// What an agent does with a connection.
#[derive(Clone)]
enum Manner {
    /// Sends this and closes.
    Says(Vec<u8>),
    /// Sends this byte by byte and closes.
    Spells(Vec<u8>),
    /// Resets it.
    Resets,
    /// Sends this without an end, until the other side has closed.
    Floods(u8),
}

/// An agent under the control of the test.
struct Agent {
    port: u16,
    manner: Arc<Mutex<Manner>>,
    /// What it was sent last.
    asked: Arc<Mutex<Vec<u8>>>,
    is_over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Agent {
    fn says(line: &str) -> Self {
        let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let manner = Arc::new(Mutex::new(Manner::Says(line.into())));
        let (asked, is_over) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<AtomicBool>::default());
        let (manner_of_server, questions, is_enough) =
            (Arc::clone(&manner), Arc::clone(&asked), Arc::clone(&is_over));
        let server = thread::spawn(move || {
            for client in socket.incoming() {
                if is_enough.load(Ordering::Relaxed) {
                    return;
                }
                let manner = manner_of_server.lock().expect("lock not poisoned").clone();
                // The balancer may have gone meanwhile.
                let _gone = client.and_then(|client| serve(client, &manner, &questions));
            }
        });
        Self { port, manner, asked, is_over, server: Some(server) }
    }

    fn now(&self, manner: Manner) {
        *self.manner.lock().expect("lock not poisoned") = manner;
    }

    fn now_says(&self, line: &str) {
        self.now(Manner::Says(line.into()));
    }

    /// Nothing listens there any more.
    fn dies(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _refused = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(server) = self.server.take() {
            server.join().expect("the agent does not panic");
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.dies();
    }
}

fn serve(mut client: TcpStream, manner: &Manner, asked: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    match manner {
        Manner::Says(answer) => {
            client.write_all(answer)?;
            client.shutdown(std::net::Shutdown::Write)?;
        }
        Manner::Spells(answer) => {
            client.set_nodelay(true)?;
            answer.iter().try_for_each(|byte| client.write_all(&[*byte]))?;
            client.shutdown(std::net::Shutdown::Write)?;
        }
        Manner::Resets => return socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)),
        Manner::Floods(byte) => {
            while client.write_all(&[*byte; 1024]).is_ok() {}
            return Ok(());
        }
    }
    let mut question = Vec::new();
    client.read_to_end(&mut question)?;
    *asked.lock().expect("lock not poisoned") = question;
    Ok(())
}

/// One backend `a` of weight 100 at an address where nothing listens, and its agent.
fn pool(health: &str, agent: &Agent, keys: &str) -> String {
    format!(
        "[[pool]]\nname = \"web\"\nhealth = {{ {health} }}\n\
         backend = [{{ name = \"a\", address = \"127.0.0.1:1\", weight = 100 }}]\n\
         [pool.agent]\nport = {}\ninterval = \"100ms\"\n{keys}\n",
        agent.port
    )
}

const OFF: &str = "type = \"off\"";

fn start(agent: &Agent, keys: &str) -> Daemon {
    Daemon::start(&pool(OFF, agent, keys), IPV4)
}

fn backend(daemon: &Daemon) -> api::Backend {
    daemon.admin().get("/v1/pools/web/backends/a").expect("the backend")
}

fn words(daemon: &Daemon) -> api::Agent {
    backend(daemon).agent.expect("its pool has agents")
}

fn change(daemon: &Daemon, weight: Option<u16>, admin: Option<Admin>) -> api::Backend {
    let change = api::BackendChange { weight, admin };
    daemon.admin().ask(Method::PATCH, "/v1/pools/web/backends/a", Some(&change)).expect("change")
}

fn events(daemon: &Daemon) -> Vec<String> {
    let events: Vec<api::Event> = daemon.admin().get("/v1/events").expect("events");
    let of_agent = events.into_iter().filter(|event| event.kind == api::EventKind::Agent);
    of_agent.map(|event| event.message).collect()
}

#[test]
fn one_line_sets_the_weight_the_limit_the_admin_state_and_the_health() {
    for manner in [Manner::Says, Manner::Spells] {
        let agent = Agent::says("\n");
        agent.now(manner(b"75%,maxconn:30,maint,down # for the test\r\nrest".into()));
        let daemon = start(&agent, "");
        until("the agent has answered", || words(&daemon).weight.is_some());
        let a = backend(&daemon);
        assert_eq!((a.weight, a.admin, a.health, a.eligible), (75, Admin::Maint, Health::Down, false));
        assert_eq!(
            a.kept_out().expect("somebody does").split(" since").next(),
            Some("in maintenance by agent")
        );
        assert_eq!(a.health_reason.as_deref(), Some("its agent says down, \"for the test\""));
        let said = a.agent.expect("its pool has agents");
        assert_eq!(
            (said.maxconn, said.admin, said.health),
            (Some(30), Some(Admin::Maint), Some(Health::Down))
        );
        // On a busy machine it may be lost in between, and answer again.
        let said = || events(&daemon).into_iter().find(|message| message.starts_with("says "));
        until("there is an event", || said().is_some());
        let first = said();
        let expected = "says 75% maxconn:30 maint down, \"for the test\": weight 100 -> 75, admin state ready -> \
                        maint, health unknown -> down";
        assert_eq!(first.as_deref(), Some(expected));
    }
}

#[test]
fn what_is_not_mentioned_stays_until_the_agent_says_otherwise() {
    let agent = Agent::says("50% drain down\n");
    let daemon = start(&agent, "");
    until("all of it holds", || backend(&daemon).health == Health::Down);
    agent.now_says("ready\n");
    until("it is ready", || backend(&daemon).admin == Admin::Ready);
    assert_eq!((backend(&daemon).weight, backend(&daemon).health), (50, Health::Down));
    agent.now_says("UP 100%\n");
    until("it is up", || backend(&daemon).health == Health::Up);
    assert_eq!((backend(&daemon).weight, backend(&daemon).eligible), (100, true));
}

/// An agent's `up` overrode a failed check in HAProxy 2.2.
#[test]
fn up_does_not_override_a_failed_check() {
    let agent = Agent::says("\n");
    let daemon = Daemon::start(&pool("interval = \"20ms\", fall = 1, timeout = \"20ms\"", &agent, ""), IPV4);
    until("the check has failed", || backend(&daemon).health == Health::Down);
    agent.now_says("ready up 50%\n");
    until("the agent has answered", || words(&daemon).health == Some(Health::Up));
    assert_eq!((backend(&daemon).health, backend(&daemon).weight), (Health::Down, 50));
}

#[test]
fn an_agent_undoes_nothing_of_an_operator() {
    let agent = Agent::says("ready up weight:30\n");
    let daemon = start(&agent, "");
    until("the agent has answered", || backend(&daemon).weight == 30);
    let drained = change(&daemon, Some(7), Some(Admin::Drain));
    assert_eq!(
        (drained.weight, drained.admin),
        (7, Admin::Drain),
        "an operator's weight is over the agent's"
    );
    agent.now_says("ready 100% up maxconn:1\n");
    until("the agent has answered again", || words(&daemon).maxconn == Some(1));
    let a = backend(&daemon);
    assert_eq!((a.weight, a.admin), (7, Admin::Drain));
    assert!(a.admin_by.expect("an operator").starts_with("uid "));
    agent.now_says("maint maxconn:2\n");
    until("the stricter one holds", || backend(&daemon).admin == Admin::Maint);
    let ready = change(&daemon, None, Some(Admin::Ready));
    assert_eq!(
        (ready.admin, ready.admin_by.as_deref()),
        (Admin::Maint, Some("agent")),
        "until the agent says so"
    );
    agent.now_says("ready\n");
    until("both say so", || backend(&daemon).admin == Admin::Ready);
}

#[test]
fn an_agent_that_does_not_answer_changes_nothing_and_is_reported() {
    let mut agent = Agent::says("50% drain\n");
    let daemon = start(&agent, "");
    until("the agent has answered", || backend(&daemon).admin == Admin::Drain);
    for (manner, expected) in [
        (Manner::Says(b"up ready 1".into()), "closed before the end of the line: got \"up ready 1\""),
        (Manner::Says(Vec::new()), "closed before the end of the line: got nothing"),
        (Manner::Resets, "connection reset while waiting for the answer"),
        (Manner::Floods(b' '), "no end of the line within 65536 bytes"),
    ] {
        agent.now(manner);
        until(expected, || words(&daemon).lost.is_some_and(|why| why.starts_with(expected)));
        assert_eq!((backend(&daemon).weight, backend(&daemon).admin), (50, Admin::Drain), "{expected}");
    }
    agent.dies();
    until("it is dead", || words(&daemon).lost.as_deref() == Some("connection refused"));
    assert_eq!((backend(&daemon).weight, backend(&daemon).admin), (50, Admin::Drain), "on_lost is keep");
    let message = "cannot be reached: connection refused, what it has said stays";
    until("there is an event", || events(&daemon).iter().any(|event| event == message));
}

#[test]
fn the_words_of_an_agent_that_stays_away_are_cleared_if_so_wanted() {
    let mut agent = Agent::says("50% drain down\n");
    let daemon = start(&agent, "on_lost = \"clear after 100ms\"");
    until("the agent has answered", || backend(&daemon).admin == Admin::Drain);
    agent.dies();
    // On a busy machine it may have been forgotten before, for an answer that took too long.
    until("it is lost for good", || words(&daemon).lost.as_deref() == Some("connection refused"));
    until("it is forgotten", || backend(&daemon).admin == Admin::Ready);
    let a = backend(&daemon);
    assert_eq!((a.weight, a.health, a.eligible), (100, Health::Unknown, true));
    let said = a.agent.expect("its pool has agents");
    assert_eq!((said.weight, said.lost.as_deref()), (None, Some("connection refused")), "still lost");
}

/// Each reload began the time of its silence anew.
#[test]
fn an_agent_is_silent_for_as_long_whatever_else_changes() {
    let mut agent = Agent::says("drain\n");
    let keys = |number: u32| format!("on_lost = \"clear after 1s\"\ntimeout = \"{}ms\"", 50 + number % 2);
    let daemon = start(&agent, &keys(0));
    until("the agent has answered", || backend(&daemon).admin == Admin::Drain);
    agent.dies();
    let mut number = 0;
    until("it is forgotten", || {
        number += 1;
        daemon.reload(&pool(OFF, &agent, &keys(number)));
        daemon.wait_for_line(&["configuration applied"]);
        backend(&daemon).admin == Admin::Ready
    });
}

#[test]
fn a_word_without_a_meaning_is_reported_and_the_rest_holds() {
    let agent = Agent::says("weight:300 40% failed\n");
    let daemon = start(&agent, "");
    until("the agent has answered", || backend(&daemon).weight == 40);
    let mistake = "a weight must be 0..=256 or a percentage, got \"weight:300\"";
    assert_eq!(words(&daemon).mistake.as_deref(), Some(mistake));
    agent.now_says("40%\n");
    until("it is mended", || words(&daemon).mistake.is_none());
}

#[test]
fn a_reload_keeps_what_agents_have_said_and_one_without_them_clears_it() {
    let agent = Agent::says("50% drain\n");
    let daemon = start(&agent, "");
    until("the agent has answered", || backend(&daemon).admin == Admin::Drain);
    agent.now_says("\n");
    let other = pool(OFF, &agent, "").replace("weight = 100", "weight = 10");
    daemon.reload(&other);
    until("the file has another weight", || backend(&daemon).weight == 5);
    assert_eq!(backend(&daemon).admin, Admin::Drain);
    let (without, _) = other.split_once("[pool.agent]").expect("it has one");
    daemon.reload(without);
    until("there is no agent", || backend(&daemon).agent.is_none());
    until("nothing of it holds", || backend(&daemon).admin == Admin::Ready && backend(&daemon).weight == 10);
}

#[test]
fn an_agent_is_told_which_backend_is_meant() {
    let agent = Agent::says("up\n");
    let daemon = start(&agent, "address = \"127.0.0.1\"\nsend = \"of {backend}\\n\"");
    until("the agent has answered", || backend(&daemon).health == Health::Up);
    until("it was asked", || *agent.asked.lock().expect("lock not poisoned") == b"of a\n");
}

#[test]
fn an_agent_may_speak_http() {
    let agent = Agent::says("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n20% drain");
    let daemon = start(&agent, "type = \"http\"\npath = \"/of/{backend}\"");
    until("the agent has answered", || backend(&daemon).weight == 20);
    assert_eq!(backend(&daemon).admin, Admin::Drain);
    agent.now_says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n30%\r\n3\r\n up\r\n0\r\n\r\n");
    until("the agent has answered in chunks", || backend(&daemon).weight == 30);
    let is_request = |asked: &[u8]| asked.starts_with(b"GET /of/a HTTP/1.0\r\nHost: 127.0.0.1:");
    until("it was asked", || is_request(&agent.asked.lock().expect("lock not poisoned")));
    agent.now_says("HTTP/1.1 503 Busy\r\n\r\nready");
    until("another status is no answer", || {
        words(&daemon).lost.as_deref() == Some("expected status 2xx, got 503")
    });
    assert_eq!(backend(&daemon).admin, Admin::Drain);
}

#[test]
fn ctl_shows_what_an_agent_says() {
    let agent = Agent::says("75% maxconn:30 drain # rolling\n");
    let daemon = start(&agent, "");
    until("the agent has answered", || backend(&daemon).admin == Admin::Drain);
    let output = daemon.command(&["ctl", "backends"]).output().expect("ctl runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("drained by agent since"), "{text}");
    assert!(text.contains("agent says 75% maxconn:30 drain \"rolling\""), "{text}");
    let output = daemon.command(&["ctl", "ready", "web/a"]).output().expect("ctl runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("web/a: drain,unknown, weight 75, gets no new sessions"), "{text}");
    assert!(text.contains("drained by agent since"), "{text}");
    let admin = daemon.admin();
    let scrape = admin.answer(Method::GET, "/metrics", None::<&()>).expect("a scrape");
    let metrics = String::from_utf8(scrape.body.to_vec()).expect("text");
    let series = "l4lb_backend_agent_maxconn{pool=\"web\",backend=\"a\"} 30";
    assert!(metrics.contains(series), "{metrics}");
}
