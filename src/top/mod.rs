//! `l4lb top`: a live view of a running l4lb on a terminal, with keys to drain its backends.
//!
//! `app` is the state and the meaning of keys, without I/O; `rates` derives rates from totals; `screen` and `table`
//! draw; `feed` talks to the admin API and `terminal` takes over and restores the terminal; both
//! send `input`. This file connects them.

mod app;
mod feed;
mod input;
mod panels;
mod rates;
mod screen;
mod sources;
mod table;
mod terminal;

#[cfg(test)]
mod tests;

use std::env;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use ratatui::buffer::Buffer;
use ratatui::crossterm;
use ratatui::layout::Rect;

use crate::api;
use crate::config::Invalid;
use crate::config::units::{parse_duration, show_duration};
use crate::ctl::target::At;
use crate::ctl::{Client, Failure, print};
use crate::sys::Clock;
use app::{App, KeyAction, Link, News};
use feed::{Order, WantedSessions};
use input::Input;
use terminal::Screen;

/// Keys and news that wait; their senders block when it is full.
const INPUTS_LEN: usize = 64;
/// Changes that wait to be made.
const CHANGES_LEN: usize = 8;
/// The screen is redrawn this often without news: notices expire, and silence is shown.
const TICK: Duration = Duration::from_millis(250);
/// Extra time that `--once` waits for two samples, beyond the time between them.
const ONCE_PATIENCE: Duration = Duration::from_secs(10);
/// Permitted intervals: samples are made once a second.
const INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(1);
/// The width and height of printed screens without a terminal and without COLUMNS and LINES.
const PRINTED: (u16, u16) = (120, 30);

const EXAMPLES: &str = "\
Examples:
  l4lb top                              the l4lb of this machine
  l4lb top --address 127.0.0.1:9091 --token-file /etc/l4lb.token
  COLUMNS=160 l4lb top --once           one screen as text, with all backends

Keys:
  q quit          ? help            up, down, PgUp, PgDn, Home, End select
  s sort by the next column         r reverse the order         / filter
  d drain         y make ready      m maintenance; each asks for confirmation
  v events, listeners, open or ended sessions or the last reload below
  o sessions with most bytes, the oldest or the longest silent    x dismiss a refused reload

Without --socket and --address the default socket of l4lb is used: admin.sock in
$RUNTIME_DIRECTORY, in $XDG_RUNTIME_DIR/l4lb, or in /run/l4lb for root. When l4lb is restarted,
top waits for it. NO_COLOR=1 disables colours.
Exit codes: 0 done, 1 unreachable or no terminal, 2 wrong flags.";

/// The process to watch, and how.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// Unix socket of the admin API
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Address of the admin API over TCP; needs --token-file
    #[arg(long, value_name = "ADDR")]
    address: Option<SocketAddr>,
    /// File with the token to present over TCP
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Time between two samples, 1s..=1m
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Print one screen as text and exit; needs no terminal
    #[arg(long)]
    once: bool,
}

fn parse_interval(text: &str) -> Result<Duration, Invalid> {
    let interval = parse_duration(text)?;
    let (min, max) = (show_duration(*INTERVAL.start()), show_duration(*INTERVAL.end()));
    let wrong = || Invalid(format!("must be {min}..={max}, got {text:?}"));
    if INTERVAL.contains(&interval) { Ok(interval) } else { Err(wrong()) }
}

impl TopArgs {
    fn client(&self) -> Result<Client, Failure> {
        let Self { socket, address, token_file, .. } = self.clone();
        At { socket, address, address_flag: "--address", token_file }.client()
    }
}

/// Shows a running l4lb until a key or `stop` ends it.
pub(crate) fn run(args: &TopArgs, stop: &Receiver<()>) -> Result<(), Failure> {
    let client = args.client()?;
    if args.once {
        return once(args, client);
    }
    if !terminal::is_there() {
        return Err(Failure::Failed("no terminal to draw on: use --once to print one screen".into()));
    }
    // If the process cannot be reached, the error must appear before the terminal is taken over.
    let _reached: api::Status = client.get("/v1/status")?;
    let app = App::new(client.target().to_string(), args.interval);
    let (changes, to_change) = sync_channel(CHANGES_LEN);
    let changer = args.client()?;
    let (sender, inputs) = sync_channel(INPUTS_LEN);
    // Before the threads, so that their panics leave a usable terminal behind.
    let screen = Screen::open().map_err(|error| unusable(&error))?;
    let wanted = WantedSessions::default();
    follow(args, client, &wanted, sender.clone())?;
    spawn("l4lb-changes", sender.clone(), move |sender| feed::change(&changer, &to_change, sender))?;
    spawn("l4lb-keys", sender, terminal::read_keys)?;
    show(app, screen, &inputs, &changes, &wanted, stop)
}

fn unusable(error: &io::Error) -> Failure {
    Failure::Failed(format!("the terminal cannot be used: {error}"))
}

fn follow(
    args: &TopArgs,
    client: Client,
    wanted: &WantedSessions,
    sender: SyncSender<Input>,
) -> Result<(), Failure> {
    let (interval, wanted) = (args.interval, WantedSessions::clone(wanted));
    spawn("l4lb-samples", sender, move |sender| feed::follow(&client, interval, &wanted, sender))
}

/// Starts a thread, which ends with the process or when its receiver has gone.
fn spawn(
    name: &str,
    sender: SyncSender<Input>,
    body: impl FnOnce(&SyncSender<Input>) + Send + 'static,
) -> Result<(), Failure> {
    let started = thread::Builder::new().name(name.into()).spawn(move || body(&sender));
    started.map(drop).map_err(|error| Failure::Failed(format!("cannot start a thread: {error}")))
}

fn show(
    mut app: App,
    mut screen: Screen,
    inputs: &Receiver<Input>,
    orders: &SyncSender<Order>,
    wanted: &WantedSessions,
    stop: &Receiver<()>,
) -> Result<(), Failure> {
    let clock = Clock::start();
    loop {
        let now = clock.now();
        let drawn = screen.terminal().draw(|frame| {
            let rows = screen::rows_on(&app, frame.area());
            app.set_page(rows);
            screen::draw(&app, now, frame.area(), frame.buffer_mut());
        });
        drawn.map_err(|error| unusable(&error))?;
        let first = match inputs.recv_timeout(TICK) {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Failed("the connection and the keyboard have ended".into()));
            }
        };
        if !matches!(stop.try_recv(), Err(TryRecvError::Empty)) {
            return Ok(());
        }
        let now = clock.now();
        // Inputs that arrived together are drawn together.
        for input in first.into_iter().chain(inputs.try_iter().take(INPUTS_LEN)) {
            let action = match input {
                Input::Key(key) => app.on_key(key, now),
                Input::Resized => None,
                Input::News(news) => {
                    app.on_news(news, now);
                    None
                }
                Input::Blind(error) => return Err(unusable(&error)),
            };
            let order = match action {
                None => continue,
                Some(KeyAction::Quit) => return Ok(()),
                Some(KeyAction::Change(change)) => Order::Change(change),
                Some(KeyAction::Dismiss(number)) => Order::Dismiss(number),
            };
            if orders.try_send(order).is_err() {
                app.on_news(News::Answer("too many changes wait for their answer".into()), now);
            }
        }
        *wanted.lock().expect("lock not poisoned") = app.wanted_sessions();
    }
}

/// Prints the result of two samples, with all backends.
fn once(args: &TopArgs, client: Client) -> Result<(), Failure> {
    let clock = Clock::start();
    let mut app = App::new(client.target().to_string(), args.interval);
    app.printed = true;
    let (sender, inputs) = sync_channel(INPUTS_LEN);
    follow(args, client, &WantedSessions::default(), sender)?;
    let deadline = clock.now() + args.interval + ONCE_PATIENCE;
    while app.rates.is_none() {
        match inputs.recv_timeout(deadline - clock.now()) {
            Ok(Input::News(news)) => app.on_news(news, clock.now()),
            Ok(Input::Key(_) | Input::Resized | Input::Blind(_)) => {}
            Err(_) => return Err(Failure::Failed(format!("l4lb at {} sends no samples", app.place))),
        }
        if let Link::Lost(why) = app.link {
            return Err(Failure::Failed(why));
        }
    }
    let size = crossterm::terminal::size().ok().filter(|_| terminal::is_there());
    let (width, height) =
        size.unwrap_or_else(|| (variable("COLUMNS", PRINTED.0), variable("LINES", PRINTED.1)));
    let area = Rect::new(0, 0, width, screen::height_for(&app, app.rows().len(), height));
    let mut buffer = Buffer::empty(area);
    screen::draw(&app, clock.now(), area, &mut buffer);
    print(&screen::text(&buffer))
}

/// Returns the number in an environment variable, or `otherwise`.
fn variable(name: &str, otherwise: u16) -> u16 {
    let value = env::var(name).ok().and_then(|value| value.parse().ok());
    value.filter(|value| *value > 0).unwrap_or(otherwise)
}
