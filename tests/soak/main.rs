//! The soak: very many connections of every kind through a real l4lb, and not a byte or an end may be wrong.
//!
//! Clients and backends are one thread here; the balancer between them is a process of its own. What happens on a
//! connection follows from its number ([`script`]), so both ends know what is due and look at every byte ([`wire`]).
//! At the end the books of both and the balancer's own counters must agree ([`laws`]).
//!
//! `cargo test` runs it small. `cargo test --test soak -- --help` shows the flags, scripts/soak.sh runs it large.

mod backends;
mod balancer;
mod books;
mod clients;
mod laws;
mod script;
mod stream;
mod wire;

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use l4lb::session::Side;
use l4lb::sys::Clock;
use tokio::task::LocalSet;
use tokio::time::sleep;

use balancer::{Balancer, Held, Totals};
use books::Books;
use clients::Clients;
use laws::Law;
use script::Kind;
use wire::World;

/// How long the last sessions may take to end when all clients are gone.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Lines of progress where there is no terminal.
const PROGRESS_LINES: u64 = 10;
/// Connections from one such line to the next, at least.
const PROGRESS_EVERY_MIN: u64 = 10_000;
/// Connections of the warm-up, for each that there is at a time.
const WARM_UP: u64 = 4;

/// Very many connections of every kind through a real l4lb
#[derive(Debug, Parser)]
#[command(name = "soak", args_override_self = true)]
struct Flags {
    /// Connections in all
    #[arg(long, default_value_t = 2_000)]
    connections: u64,
    /// Connections at a time
    #[arg(long, default_value_t = 256)]
    concurrency: usize,
    /// Decides everything that the peers do
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Workers of the balancer
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How the balancer passes bytes: auto, copy or splice
    #[arg(long, default_value = "auto")]
    relay: String,
    /// The program under test [default: the one that cargo built]
    #[arg(long, value_name = "FILE")]
    l4lb: Option<PathBuf>,
    /// Only connections that end properly, so that every counter is known to the byte
    #[arg(long)]
    graceful: bool,
    #[command(flatten)]
    harness: Harness,
}

/// What `cargo test` passes to every test program. Only the filter and --list, --skip and --ignored mean something
/// here.
#[derive(Debug, clap::Args)]
struct Harness {
    #[arg(hide = true)]
    filters: Vec<String>,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true, alias = "no-capture")]
    nocapture: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    test_threads: Option<String>,
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    color: Option<String>,
}

impl Harness {
    fn wants_soak(&self) -> bool {
        let meant = |word: &String| if self.exact { word == "soak" } else { "soak".contains(word.as_str()) };
        let filtered = !self.filters.is_empty() && !self.filters.iter().any(meant);
        !(self.list || self.ignored || filtered || self.skip.iter().any(meant))
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if !flags.harness.wants_soak() {
        return ExitCode::SUCCESS;
    }
    match soak(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the soak and prints its result; returns whether it passed.
fn soak(flags: &Flags) -> anyhow::Result<bool> {
    stream::expect_faults_are_found(flags.seed)?;
    let world = Rc::new(World::new(flags.seed, !flags.graceful, usize::try_from(flags.connections)?)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, run(flags, &world))?;
    let books = world.books.borrow();
    let laws = outcome.laws(flags, &books);
    print_kinds(&books);
    outcome.print_figures(flags);
    print_laws(&laws);
    for (fault, count, first) in books.faults() {
        println!("MISMATCH {fault:?}: {count}, the first: {first}");
    }
    outcome.complaints.iter().for_each(|line| println!("l4lb: {line}"));
    let all_is_well = books.faults().next().is_none() && laws.iter().all(|law| law.holds);
    let verdict = if all_is_well { "ok" } else { "FAILED" };
    let over = books.sum(Side::Client, |_| true, |row| row.connections);
    println!("soak: {verdict}: {over} of {} connections, seed {}", flags.connections, flags.seed);
    Ok(all_is_well)
}

/// What a run has shown besides the books.
struct Outcome {
    idle: Held,
    before: Held,
    behind: Held,
    totals: Totals,
    complaints: Vec<String>,
    load: Duration,
    cpu_seconds: f64,
    loaded: u64,
}

async fn run(flags: &Flags, world: &Rc<World>) -> anyhow::Result<Outcome> {
    let backends = backends::start(world)?;
    let program = flags.l4lb.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_l4lb").into());
    let balancer = Balancer::start(&program, flags.workers, &flags.relay, &backends)?;
    let idle = balancer.held()?;
    let clients = Clients {
        world: Rc::clone(world),
        addresses: balancer.addresses.as_slice().into(),
        concurrency: flags.concurrency,
    };
    let warm_up = (flags.connections / 4).min(WARM_UP * flags.concurrency as u64);
    clients.run(0..warm_up, Rc::new(|| {})).await?;
    let before = idle_again(&balancer, idle).await?;

    let loaded = flags.connections - warm_up;
    let (clock, cpu) = (Clock::start(), balancer.cpu_seconds()?);
    let start = clock.now();
    clients.run(warm_up..flags.connections, progress(loaded)).await?;
    let load = clock.now() - start;
    let cpu_seconds = balancer.cpu_seconds()? - cpu;
    let behind = idle_again(&balancer, idle).await?;
    within(END_PATIENCE, || Ok(world.books.borrow().backend_active == 0)).await?;
    let (totals, complaints) = balancer.stop()?;
    Ok(Outcome { idle, before, behind, totals, complaints, load, cpu_seconds, loaded })
}

/// What the balancer holds once it has no session any more: an open session is an open file. Where that does not come,
/// a law will be broken.
async fn idle_again(balancer: &Balancer, idle: Held) -> anyhow::Result<Held> {
    within(END_PATIENCE, || Ok(balancer.held()?.open_files <= idle.open_files)).await?;
    balancer.held()
}

/// Whether `condition` has come to hold in time.
async fn within(
    patience: Duration,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let clock = Clock::start();
    let deadline = clock.now() + patience;
    loop {
        if condition()? {
            return Ok(true);
        }
        if clock.now() >= deadline {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
}

/// Counts every connection that has ended, and shows the progress.
fn progress(connections: u64) -> Rc<dyn Fn()> {
    let style = "{elapsed_precise} {bar:40} {pos}/{len} {per_sec} ETA {eta}";
    let bar = ProgressBar::new(connections);
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let lines = if stderr().is_terminal() {
        u64::MAX
    } else {
        connections.div_ceil(PROGRESS_LINES).max(PROGRESS_EVERY_MIN)
    };
    Rc::new(move || {
        bar.inc(1);
        if bar.position().is_multiple_of(lines) {
            let (rate, eta) = (bar.per_sec(), bar.eta());
            eprintln!("{} of {connections}, {rate:.0}/s, ETA {} s", bar.position(), eta.as_secs());
        }
    })
}

fn print_kinds(books: &Books) {
    println!(
        "| {:<20} | {:>11} | {:>14} | {:>14} | {:>10} |",
        "kind", "connections", "to backends", "to clients", "mismatches"
    );
    println!("|{:-<22}|{:->12}:|{:->15}:|{:->15}:|{:->11}:|", "", "", "", "", "");
    let mut sums = [0; 4];
    for kind in Kind::all() {
        let [client, backend] = Side::BOTH.map(|side| books.row(side, kind));
        let figures =
            [client.connections, backend.received, client.received, client.mismatches + backend.mismatches];
        print_row(kind.as_str(), figures);
        sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
    }
    print_row("all", sums);
}

fn print_row(name: &str, [connections, to_backends, to_clients, mismatches]: [u64; 4]) {
    println!("| {name:<20} | {connections:>11} | {to_backends:>14} | {to_clients:>14} | {mismatches:>10} |");
}

fn print_laws(laws: &[Law]) {
    println!();
    for Law { what, holds, figures } in laws {
        println!("{} {what}: {figures}", if *holds { "ok     " } else { "BROKEN " });
    }
}

impl Outcome {
    fn laws(&self, flags: &Flags, books: &Books) -> Vec<Law> {
        let mut laws = laws::of_process(
            self.before,
            self.behind,
            flags.workers,
            laws::memory_growth_max_kib(flags.workers),
        );
        laws.extend(laws::of_connections(books, &self.totals));
        laws.extend(laws::of_bytes(books, &self.totals));
        laws
    }

    fn print_figures(&self, flags: &Flags) {
        let seconds = self.load.as_secs_f64();
        let rate = self.loaded as f64 / seconds;
        let cpu_us = self.cpu_seconds * 1e6 / self.loaded as f64;
        println!(
            "\n{} connections in {seconds:.1} s: {rate:.0}/s, {} at a time, {cpu_us:.0} us CPU of l4lb each",
            self.loaded, flags.concurrency
        );
        for (when, held) in
            [("idle", self.idle), ("before the load", self.before), ("behind the load", self.behind)]
        {
            let Held { open_files, pipe_ends, memory_kib } = held;
            println!("l4lb, {when}: {open_files} open files, {pipe_ends} ends of pipes, {memory_kib} KiB");
        }
        println!("l4lb: {}", self.totals.line);
    }
}
