//! The fuzz targets of `tests/fuzz`, without a fuzzer: every input of their corpora, then inputs made from those by
//! chance. The same inputs each time, so what fails here fails everywhere; `scripts/fuzz.sh` goes further.
//!
//! FUZZ_INPUTS=N makes N inputs a target. A failure prints its input as hex; FUZZ_REPLAY=HEX runs that one alone:
//! `FUZZ_REPLAY=00ff cargo test --test fuzz session`.

#![expect(clippy::unwrap_used, reason = "a test may")]

#[expect(unreachable_pub, reason = "to the fuzzer it is a library")]
#[path = "fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use l4lb::base::rng::Rng;

/// Longest input that is made.
const LEN_MAX: usize = 2_048;
/// Most changes to an input of the corpus.
const CHANGES_MAX: u64 = 6;

/// One target.
struct Target {
    name: &'static str,
    check: fn(&[u8]),
}

/// An index below `len`, which must not be 0.
fn below(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap()
}

impl Target {
    /// Runs the target on its corpus and on inputs made from it.
    fn run(&self, inputs: u64) {
        if let Ok(hex) = std::env::var("FUZZ_REPLAY") {
            return (self.check)(&decode(&hex));
        }
        let corpus = self.corpus();
        for (name, input) in &corpus {
            self.check(name, input);
        }
        let inputs = std::env::var("FUZZ_INPUTS").map_or(inputs, |count| count.parse().unwrap());
        for number in 0..inputs {
            self.check(&format!("input {number}"), &made(number, &corpus));
        }
    }

    fn check(&self, what: &str, input: &[u8]) {
        // A panic leaves nothing behind: a target is a function of its input.
        if catch_unwind(|| (self.check)(input)).is_err() {
            let (name, hex) = (self.name, encode(input));
            panic!("{what} breaks `{name}`: FUZZ_REPLAY={hex} cargo test --test fuzz {name}");
        }
    }

    /// The inputs of the repository, in the order of their names.
    fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(self.name);
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut corpus: Vec<_> = files
            .map(|file| (file.file_name().unwrap().display().to_string(), fs::read(&file).unwrap()))
            .collect();
        corpus.sort();
        assert!(!corpus.is_empty(), "{} is empty", folder.display());
        corpus
    }
}

/// The input of that number: one in four is noise, the others come from the corpus with a few changes.
fn made(number: u64, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut rng = Rng::new(number);
    if rng.below(4) == 0 {
        let len = below(&mut rng, 512);
        return noise(&mut rng, len);
    }
    let (_, mut input) = corpus[below(&mut rng, corpus.len())].clone();
    for _ in 0..=rng.below(CHANGES_MAX) {
        change(&mut input, &mut rng, corpus);
    }
    input.truncate(LEN_MAX);
    input
}

fn noise(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next_u64().to_le_bytes()[0]).collect()
}

/// Replaces a piece by something else, by nothing, or nothing by something.
fn change(input: &mut Vec<u8>, rng: &mut Rng, corpus: &[(String, Vec<u8>)]) {
    let start = below(rng, input.len() + 1);
    let end = (start + below(rng, 16)).min(input.len());
    match rng.below(6) {
        0 if start < input.len() => input[start] ^= 1 << rng.below(8),
        1 if start < input.len() => input[start] = [0, 1, 0x7F, 0x80, 0xFF][below(rng, 5)],
        2 => drop(input.drain(start..end)),
        3 => {
            let len = below(rng, 8);
            let bytes = noise(rng, len);
            drop(input.splice(start..end, bytes));
        }
        4 => {
            let again = input[start..end].to_vec();
            drop(input.splice(start..start, again));
        }
        _ => {
            let (_, other) = &corpus[below(rng, corpus.len())];
            let from = below(rng, other.len() + 1);
            let to = (from + below(rng, 64)).min(other.len());
            drop(input.splice(start..end, other[from..to].iter().copied()));
        }
    }
}

fn encode(input: &[u8]) -> String {
    input.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

// The counts take about a second each, in a build for tests. A name has the word of its target in it, for a replay.

#[test]
fn config_text_is_a_config_or_mistakes_with_their_place() {
    Target { name: "config", check: targets::config::check }.run(15_000);
}

#[test]
fn flags_are_valid_or_one_line_names_the_mistake() {
    Target { name: "flags", check: targets::flags::check }.run(15_000);
}

#[test]
fn a_session_keeps_its_invariants_whatever_the_kernel_returns() {
    Target { name: "session", check: targets::session::check }.run(200_000);
}

#[test]
fn how_an_answer_is_split_does_not_decide_a_check() {
    Target { name: "answer", check: targets::answer::check }.run(30_000);
}

#[test]
fn where_the_answer_of_an_agent_is_cut_does_not_decide_what_it_says() {
    Target { name: "agent", check: targets::agent::check }.run(20_000);
}

#[test]
fn where_an_exchange_is_cut_does_not_decide_a_check() {
    Target { name: "exchange", check: targets::exchange::check }.run(20_000);
}

#[test]
fn the_timer_wheel_agrees_with_a_sorted_list() {
    Target { name: "timer_wheel", check: targets::timer_wheel::check }.run(20_000);
}

#[test]
fn balance_picks_only_members_that_are_up() {
    Target { name: "balance", check: targets::balance::check }.run(1_500);
}

#[test]
fn admin_requests_are_valid_or_one_line_names_the_mistake() {
    Target { name: "admin", check: targets::admin::check }.run(200_000);
}

#[test]
fn the_guard_of_the_admin_api_accepts_no_request_from_elsewhere() {
    Target { name: "guard", check: targets::guard::check }.run(200_000);
}

#[test]
fn a_state_file_puts_back_nothing_that_no_request_could_have_made() {
    Target { name: "state_file", check: targets::state_file::check }.run(50_000);
}

#[test]
fn a_list_of_backends_can_be_run_or_says_where_it_is_wrong() {
    Target { name: "list", check: targets::list::check }.run(30_000);
}

#[test]
fn where_a_proxy_header_is_cut_does_not_decide_what_it_says() {
    Target { name: "proxy", check: targets::proxy::check }.run(30_000);
}

#[test]
fn where_a_hello_is_cut_does_not_decide_which_server_it_names() {
    Target { name: "hello", check: targets::hello::check }.run(20_000);
}

#[test]
fn where_the_first_message_of_postgres_is_cut_does_not_decide_what_it_is() {
    Target { name: "postgres", check: targets::postgres::check }.run(200_000);
}

#[test]
fn the_stream_of_a_watch_has_the_same_messages_wherever_its_pieces_end() {
    Target { name: "watch", check: targets::watch::check }.run(30_000);
}
