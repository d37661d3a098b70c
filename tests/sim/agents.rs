//! The agents of backends: what they answer, and what a control thread makes of it. One that does not behave answers a
//! part of a line, far too much, late, or not at all.

use l4lb::config::model::{Check, HealthState};
use l4lb::messages::report::AgentNews;
use l4lb::pool::{Admin, Advice, AgentWeight, BackendId, Snapshot};
use nix::libc;

use crate::backend_model::Roster;
use crate::conn::{Answer, Called, Stage};
use crate::network::Net;
use crate::peer::{Ending, Peer, Reading};
use crate::stream::Stream;

/// The port of the agents of the first pool; those of the other follow it.
pub(crate) const FIRST_AGENT_PORT: u16 = 7_001;
/// Agents of so many pools.
const AGENT_PORTS: u16 = 2;
/// More than an exchange reads.
const FLOOD: u64 = 70_000;

const NOTHING: Advice = Advice::NONE;
/// What agents say in the end.
const CALM: Advice = Advice {
    weight: Some(AgentWeight::Percent(100)),
    maxconn: Some(7),
    admin: Some(Admin::Ready),
    health: Some(HealthState::Up),
};

/// Lines, and what they mean.
const LINES: [(&[u8], Advice); 11] = [
    (b"100%,maxconn:7,ready,up\n", CALM),
    (b"\r\n", NOTHING),
    (b"up\n", Advice { health: Some(HealthState::Up), ..NOTHING }),
    (b"up,ready\n", Advice { health: Some(HealthState::Up), admin: Some(Admin::Ready), ..NOTHING }),
    (b"DOWN # disk full\n", Advice { health: Some(HealthState::Down), ..NOTHING }),
    (b"\tdrain fail\r\n", Advice { health: Some(HealthState::Down), admin: Some(Admin::Drain), ..NOTHING }),
    (b"maint\n", Advice { admin: Some(Admin::Maint), ..NOTHING }),
    (b"ready\n", Advice { admin: Some(Admin::Ready), ..NOTHING }),
    (b"50% nonsense\n", Advice { weight: Some(AgentWeight::Percent(50)), ..NOTHING }),
    (b"0%\n", Advice { weight: Some(AgentWeight::Percent(0)), ..NOTHING }),
    (b"10% weight:30\nmaint\n", Advice { weight: Some(AgentWeight::Absolute(30)), ..NOTHING }),
];

pub(crate) fn is_agent(port: u16) -> bool {
    (FIRST_AGENT_PORT..FIRST_AGENT_PORT + AGENT_PORTS).contains(&port)
}

impl Net {
    /// socket(2) and connect(2), to an agent.
    pub(crate) fn dial_agent(&mut self, worker: usize, port: u16) -> Called<usize> {
        let is_calm = self.peers_behave;
        let answer = match self.below(12) {
            _ if is_calm => Answer::Accept,
            0 => Answer::Refuse(libc::ECONNREFUSED),
            1 => Answer::Silence,
            2 => return Err(libc::ENETUNREACH),
            _ => Answer::Accept,
        };
        let (line, _) = if is_calm { LINES[0] } else { LINES[self.below(LINES.len())] };
        let len = line.len() as u64;
        let cut = self.below(line.len()) as u64;
        let (total, ending) = match self.below(12) {
            _ if is_calm => (len, Ending::Fin),
            0 => (cut, Ending::Fin),
            1 => (cut, Ending::Reset { after: cut }),
            2 => (cut, Ending::Never),
            3 => (FLOOD, Ending::Never),
            4 => (len, Ending::Reset { after: len }),
            5 => (len, Ending::Close { after: len }),
            6 => (len, Ending::FinAfterFin),
            _ => (len, Ending::Fin),
        };
        let line = if total == FLOOD { b"" } else { line };
        let peer = Peer::new(total, 0, ending, Reading::Eager, 1 << 16);
        let id = self.add(Stage::Dialing(answer), peer);
        let conn = &mut self.conns[id];
        (conn.worker, conn.dialed_port, conn.stream) = (worker, Some(port), Stream::Literal(line));
        self.coverage.hit_if(total == FLOOD, "agent floods");
        self.coverage.hit_if(total == cut, "agent says half a line");
        Ok(id)
    }
}

impl Roster {
    /// Does what a control thread does; returns whether that needs new tables.
    pub(crate) fn on_agent(&mut self, snapshot: &Snapshot, id: BackendId, news: &AgentNews) -> bool {
        let Some(backend) = snapshot.backend(id) else { return false };
        let settings = &snapshot.pool(backend.pool).settings;
        if settings.agent.is_none() {
            return false;
        }
        let target = self.target(id);
        let advice = match news {
            AgentNews::Said { advice, .. } => {
                let is_said = LINES.iter().any(|(_, said)| *said == *advice);
                assert!(is_said, "no agent has said {advice:?}");
                target.agent.followed_by(*advice)
            }
            AgentNews::Lost(_) => return false,
            AgentNews::Forgotten => {
                assert_ne!(target.agent, NOTHING, "there is something to forget");
                NOTHING
            }
        };
        target.agent = advice;
        target.on_admin();
        backend.set_agent(advice, settings.health.check == Check::Off);
        true
    }

    /// Panics unless every agent of a listed backend has been asked since all of them behave.
    pub(crate) fn check_agents(&self, snapshot: &Snapshot) {
        for backend in snapshot.backends() {
            let has_agent = snapshot.pool(backend.pool).settings.agent.is_some();
            assert!(
                !has_agent || backend.agent() == CALM,
                "{}: its agent says {:?}",
                backend.name,
                backend.agent()
            );
        }
    }
}
