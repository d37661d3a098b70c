//! The scenario of one seed: a configuration as an operator would write it, and the backends' answers to checks.

use std::fmt::Write;
use std::time::Duration;

use l4lb::base::rng::Rng;
use l4lb::config::{self, Config, Overrides};

use crate::agents::FIRST_AGENT_PORT;
use crate::greeting::LISTS;
use crate::network::{Backend, FIRST_BACKEND_PORT, Mode};
use crate::oracle::Patience;
use crate::pipe::PAGE;
use crate::random::{below, to_usize};

/// The settings of each kind of check, and a healthy backend's answer.
const CHECKS: [(&str, &[u8]); 4] = [
    ("type = \"tcp\"", b""),
    ("type = \"off\"", b""),
    ("type = \"send_expect\", send = \"PING\", expect = \"+PONG\"", b"+PONG\r\n"),
    ("type = \"http\", path = \"/\"", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
];

/// Checks of several messages, in place of the third kind. A healthy backend answers before it was asked, which a check
/// must not mind.
const EXCHANGES: [(&str, &[u8]); 10] = [
    CHECKS[2],
    (
        "type = \"tcp\", steps = [{ expect = \"220 \" }, { send = \"NOOP\", expect = \"250 \" }, { send = \"QUIT\" }]",
        b"220 ready\r\n250 ok\r\n",
    ),
    ("type = \"redis\"", b"+PONG\r\n"),
    ("type = \"postgres\"", b"R\0\0\0\x08\0\0\0\0S\0\0\0\x06x\0Z\0\0\0\x05I"),
    (
        "type = \"mysql\", user = \"l4lb\"",
        b"\x38\0\0\0\x0A11.8.2-MariaDB\0\x01\0\0\0scramble\0\xFE\xF7\x21\x02\0\xFF\x81\x15\0\0\0\0\0\0\0\0\0\0scramble\0\
        \x18\0\0\x02\xFEcaching_sha2_password\0\0\x07\0\0\x04\0\0\0\x02\0\0\0",
    ),
    ("type = \"smtp\"", b"220-mail\r\n220 ready\r\n250-mail\r\n250 SIZE\r\n221 bye\r\n"),
    (
        "type = \"grpc\", service = \"shop\"",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x07\0\0\0\0\0\x01\0\0\0\0\x02\x08\x01",
    ),
    ("type = \"mqtt\"", b"\x20\x02\0\0"),
    ("type = \"send_expect\", contains = \"ready\"", b"not yet, but now it is ready\r\n"),
    // Its answer is in `programs`.
    ("type = \"command\", command = [\"/check\", \"0\"]", b""),
];

/// See the module.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) backends: Vec<Backend>,
    pub(crate) patience: Patience,
    /// Of all workers together.
    pub(crate) sessions_max: usize,
    /// Checks of each worker at a time.
    pub(crate) checks_max: usize,
    /// Of each worker.
    pub(crate) pipes_max: usize,
    /// Requested capacity of each pipe.
    pub(crate) pipe_len: usize,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng, is_loud: bool) -> Self {
        let mut text = String::new();
        let workers = 1 + rng.below(2);
        write!(text, "[global]\nworkers = {workers}\n").expect("a string takes all");
        let pools = 1 + rng.below(2);
        let mut backends = Vec::new();
        let listeners_at = text.len();
        for pool in 0..pools {
            draw_listener(rng, &mut text, pool);
        }
        let timeouts =
            [pick(rng, &[100, 5_000]), pick(rng, &[400, 10_000, 3_600_000]), pick(rng, &[200, 30_000])];
        // Without dice of its own. All pools: an address may serve one after the other.
        let header = match (timeouts.iter().sum::<u64>() / 200 + workers + 2 * pools) % 4 {
            0 => "proxy_protocol = \"v1\"\n",
            1 => "proxy_protocol = \"v2\"\n",
            _ => "",
        };
        // As above: a client may come by any of them.
        let reads_headers = match (timeouts.iter().sum::<u64>() / 400 + workers * 3 + pools) % 4 {
            0 => "proxy_protocol = { from = [\"172.16.0.0/12\"], others = \"reject\" }\n",
            1 => "proxy_protocol = { from = [\"172.16.0.0/12\"], others = \"plain\" }\n",
            _ => "",
        };
        // As above.
        let route = format!("route = [{{ sni = [\"a.example.com\"], pool = \"p{}\" }}]\n", pools - 1);
        let tls = ["passthrough", "postgres"][to_usize((timeouts[1] / 400 + workers) % 2)];
        let reads_hellos = match (timeouts.iter().sum::<u64>() / 100 + workers + pools * 3) % 5 {
            0 => format!("tls = \"{tls}\"\n{route}"),
            1 => format!("tls = \"{tls}\"\non_no_sni = \"reject\"\n{route}"),
            _ => String::new(),
        };
        // As above.
        let lists = match (timeouts.iter().sum::<u64>() / 300 + workers + pools) % 3 {
            0 => LISTS,
            _ => "",
        };
        // As above.
        let on_refuse = ["reset", "close"][to_usize((timeouts.iter().sum::<u64>() / 100 + pools) % 2)];
        let preread = timeouts[0] + 500;
        let keys = format!(
            "[[listener]]\ntimeouts = {{ preread = \"{preread}ms\" }}\non_refuse = \"{on_refuse}\"\n{lists}{reads_headers}{reads_hellos}"
        );
        text = text[..listeners_at].to_owned() + &text[listeners_at..].replace("[[listener]]\n", &keys);
        for pool in 0..pools {
            draw_pool(rng, &mut text, pool, timeouts, header, &mut backends);
        }
        if is_loud {
            eprintln!("{text}");
        }
        let mut nobody = |_: &str| Ok(Vec::new());
        let config = config::parse(&text, "plan", &Overrides::default(), &mut nobody);
        let config = config.unwrap_or_else(|errors| panic!("a plan that is refused: {errors:?}\n{text}"));
        let [connect, idle, half_close] = timeouts.map(|millis| millis * 1_000_000);
        let sessions_max = to_usize(pick(rng, &[3, 8, 1_000]));
        let pipes_max = to_usize(pick(rng, &[0, 2, 100]));
        // Fewer slots than segments arrive at a time, and more.
        let pipe_len = to_usize(pick(rng, &[1, 2, 16, 256])) * PAGE;
        // Without dice of its own, and fewer than backends that may be silent, mostly.
        let checks_max = [2, 1, 3, 128][(pipe_len / PAGE + pipes_max) % 4];
        let patience = Patience { connect, idle, half_close, preread: preread * 1_000_000 };
        Self { config, backends, patience, sessions_max, checks_max, pipes_max, pipe_len }
    }
}

fn draw_listener(rng: &mut Rng, text: &mut String, pool: u64) {
    write!(text, "[[listener]]\nbind = \"127.0.0.1:{}\"\npool = \"p{pool}\"\n", 9_000 + pool)
        .expect("as above");
    let backlog = 1 + rng.below(8);
    // Without dice of its own: where nothing is handed over, a seed stays what it was before.
    let accept = ["reuseport", "balance"][to_usize(backlog % 2)];
    writeln!(text, "backlog = {backlog}\naccept = \"{accept}\"").expect("as above");
    if rng.below(4) == 0 {
        writeln!(text, "max_sessions = {}", 1 + rng.below(4)).expect("as above");
    }
}

fn draw_pool(
    rng: &mut Rng,
    text: &mut String,
    pool: u64,
    timeouts: [u64; 3],
    header: &str,
    backends: &mut Vec<Backend>,
) {
    let [connect, idle, half_close] = timeouts;
    let balance =
        ["round_robin", "least_connections", "power_of_two", "source_hash", "random"][below(rng, 5)];
    let kind = below(rng, 4);
    let retries = rng.below(4);
    // Case 13: `auto` changes from copy to splice and back within a stream.
    let relay = ["auto", "copy", "splice"][below(rng, 3)];
    let when_all_down = ["close", "try_anyway"][below(rng, 2)];
    let user_timeout = pick(rng, &[0, 300, 20_000]);
    let interval = pick(rng, &[50, 500, 2_000]);
    let timeout = 10 + rng.below(interval - 9);
    let fast_interval = 10 + rng.below(interval - 9);
    let (rise, fall) = (1 + rng.below(3), 1 + rng.below(3));
    // Without dice of its own.
    let exchange = to_usize(timeout + fast_interval) % EXCHANGES.len();
    let (check, answer) = if kind == 2 { EXCHANGES[exchange] } else { CHECKS[kind] };
    // The same once more, or a bare connect.
    let further = match (timeout + interval) % 4 {
        _ if check.contains("off") => String::new(),
        0 => format!("check = [{{ {check}, name = \"again\" }}]\n"),
        1 => format!("check = [{{ type = \"tcp\", name = \"more\" }}, {{ {check}, name = \"again\" }}]\n"),
        _ => String::new(),
    };
    let initial = ["unknown", "up", "down"][below(rng, 3)];
    write!(
        text,
        "[[pool]]\nname = \"p{pool}\"\nbalance = \"{balance}\"\nretries = {retries}\nrelay = \"{relay}\"\n\
         when_all_down = \"{when_all_down}\"\ntcp = {{ user_timeout = \"{user_timeout}ms\" }}\n\
         timeouts = {{ connect = \"{connect}ms\", idle = \"{idle}ms\", half_close = \"{half_close}ms\" }}\n\
         health = {{ {check}, interval = \"{interval}ms\", timeout = \"{timeout}ms\", \
         fast_interval = \"{fast_interval}ms\", rise = {rise}, fall = {fall}, initial_state = \"{initial}\" }}\n\
         {header}{further}",
    )
    .expect("as above");
    // Without dice of its own.
    let agent_interval = [100, 700][to_usize(timeout % 2)];
    if !timeout.is_multiple_of(3) {
        let send = ["", "ask {backend}\\n"][to_usize(timeout / 3 % 2)];
        let on_lost = ["keep", "clear after 300ms"][to_usize(timeout / 6 % 2)];
        let port = u64::from(FIRST_AGENT_PORT) + pool;
        writeln!(
            text,
            "agent = {{ port = {port}, interval = \"{agent_interval}ms\", timeout = \"50ms\", send = \"{send}\", on_lost = \"{on_lost}\" }}"
        )
        .expect("as above");
    }
    for _ in 0..1 + rng.below(4) {
        let port = FIRST_BACKEND_PORT + u16::try_from(backends.len()).expect("a few");
        let weight = pick(rng, &[0, 1, 1, 1, 3, 256]);
        let priority = pick(rng, &[0, 0, 0, 1, 2, 15]);
        let tier = if priority == 15 { "backup = true".to_owned() } else { format!("priority = {priority}") };
        write!(text, "[[pool.backend]]\naddress = \"127.0.0.1:{port}\"\nweight = {weight}\n{tier}\n")
            .expect("as above");
        let mode = if rng.below(4) == 0 { Mode::draw(rng) } else { Mode::Serving };
        backends.push(Backend { mode, answer, home: pool });
    }
    for source in 0..rng.below(3) {
        write!(text, "[[pool.discover]]\ntype = \"dns\"\nname = \"s{source}.p{pool}.test\"\nport = 80\n")
            .expect("as above");
    }
}

impl Mode {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0..4 => Self::Serving,
            4 | 5 => Self::Refusing,
            6 => Self::Unreachable,
            7 => Self::Blackhole,
            8 => Self::Resetting,
            _ => Self::Hung,
        }
    }
}

fn pick(rng: &mut Rng, choices: &[u64]) -> u64 {
    choices[below(rng, choices.len())]
}

/// Returns how long the slowest health check of a plan takes to notice a change.
pub(crate) fn slowest_verdict(config: &Config) -> Duration {
    let verdict = |pool: &config::model::Pool| {
        let checks = u32::try_from(pool.health.checks().count()).expect("a few");
        let agent = pool.agent.as_ref().map_or(Duration::ZERO, |agent| agent.interval * 4);
        agent.max(pool.health.interval * 2 * (pool.health.rise + pool.health.fall + 2) * checks)
    };
    config.pools.iter().map(verdict).max().expect("at least one pool")
}
