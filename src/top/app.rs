//! The state of `l4lb top`, and the effect of keys on it. Does no I/O and reads no clock: samples, keys and the time
//! come in, a [`KeyAction`] goes out, and [`super::screen`] draws it.

use std::cmp::Ordering;
use std::time::Duration;

use crate::api;
use crate::base::time::Instant;
use crate::config::one_line;
use crate::ctl::state_words;
use crate::top::rates::{self, History, Rates, Row};

/// How long the answer to a change stays on the screen.
const NOTICE_TIME: Duration = Duration::from_secs(5);
const READ_ONLY: &str = "this token is read-only: nothing was changed";
/// Longest filter, in characters.
const FILTER_LEN_MAX: usize = 64;

/// News from the watched process.
#[derive(Debug)]
pub(super) enum News {
    Reached(Box<api::Status>),
    /// What happened before it was reached.
    Past(Box<api::History>),
    /// A sample, and the latest events.
    Sample(Box<api::Sample>, Vec<api::Event>),
    /// The sources of backends, and how each of them does.
    Sources(Vec<api::Discovery>),
    Listeners(Vec<api::Listener>),
    /// The first open sessions in that order.
    Sessions(api::SessionSort, Vec<api::Session>),
    /// The connection is lost, and why.
    Lost(String),
    /// The result of a change, in words.
    Answer(String),
}

/// A key with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    /// Control and C: quits in every mode.
    Interrupt,
    Char(char),
}

/// An action that a key requests, besides drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyAction {
    Quit,
    Change(Change),
    /// Dismiss the refused reload of this number.
    Dismiss(u64),
}

/// The part of the screen below the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panel {
    Events,
    Listeners,
    /// The open sessions that move most, or that are the oldest.
    Sessions,
    /// Sessions that have ended, by reason.
    Ended,
    /// The last reload and its changes.
    Reload,
}

impl Panel {
    const fn next(self) -> Self {
        match self {
            Self::Events => Self::Listeners,
            Self::Listeners => Self::Sessions,
            Self::Sessions => Self::Ended,
            Self::Ended => Self::Reload,
            Self::Reload => Self::Events,
        }
    }
}

/// A new administrative state of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) pool: String,
    pub(super) backend: String,
    pub(super) admin: api::Admin,
}

impl Change {
    pub(super) const fn verb(&self) -> &'static str {
        self.admin.as_str()
    }
}

/// The column that rows are sorted by, from left to right on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Backend,
    Address,
    State,
    Priority,
    Weight,
    Sessions,
    New,
    ToBackend,
    ToClient,
    Failures,
}

impl Column {
    pub(super) const ALL: [Self; 10] = [
        Self::Backend,
        Self::Address,
        Self::State,
        Self::Priority,
        Self::Weight,
        Self::Sessions,
        Self::New,
        Self::ToBackend,
        Self::ToClient,
        Self::Failures,
    ];

    /// Returns the column `steps` further, wrapping around.
    fn moved(self, steps: usize) -> Self {
        let at = Self::ALL.iter().position(|column| *column == self).unwrap_or(0);
        Self::ALL[(at + steps) % Self::ALL.len()]
    }

    /// Orders text from A to Z, figures from the largest down.
    fn compare(self, one: &Row, other: &Row) -> Ordering {
        let (a, b) = (&one.backend, &other.backend);
        let rate = |of: fn(&Rates) -> f64| {
            let [one, other] = [one, other].map(|row| row.rates.as_ref().map_or(0.0, of));
            other.total_cmp(&one)
        };
        match self {
            Self::Backend => Ordering::Equal,
            Self::Address => a.address.cmp(&b.address),
            // Backends that do not serve come first: they are what one looks for.
            Self::State => (a.eligible, state_words(a)).cmp(&(b.eligible, state_words(b))),
            Self::Priority => b.priority.cmp(&a.priority),
            Self::Weight => b.weight.cmp(&a.weight),
            Self::Sessions => b.sessions.cmp(&a.sessions),
            Self::New => rate(|rates| rates.sessions),
            Self::ToBackend => rate(|rates| rates.to_backend),
            Self::ToClient => rate(|rates| rates.to_client),
            Self::Failures => rate(|rates| rates.failures),
        }
    }
}

/// The present meaning of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Keys move the selection and start actions.
    Table,
    Filter,
    /// Keys confirm a change, or cancel it.
    Confirm(Change),
    /// Any key closes the help.
    Help,
}

/// The connection to the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Awaited,
    /// The last sample came then.
    Live(Instant),
    Lost(String),
}

/// The complete state of the screen.
pub(super) struct App {
    /// The address of the process.
    pub(super) place: String,
    pub(super) link: Link,
    pub(super) status: Option<Box<api::Status>>,
    pub(super) sample: Option<Box<api::Sample>>,
    pub(super) rates: Option<Rates>,
    pub(super) events: Vec<api::Event>,
    pub(super) sources: Vec<api::Discovery>,
    pub(super) listeners: Vec<api::Listener>,
    pub(super) panel: Panel,
    /// The order of sessions in their panel.
    pub(super) order: api::SessionSort,
    /// The sessions there, and the order that they came in.
    pub(super) listed: Option<(api::SessionSort, Vec<api::Session>)>,
    pub(super) sessions: History,
    /// Bytes relayed per second, both directions.
    pub(super) bytes: History,
    /// 99 of 100 connects were faster, in microseconds.
    pub(super) connect: History,
    pub(super) column: Column,
    pub(super) reversed: bool,
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// The screen is printed once, so keys are not mentioned.
    pub(super) printed: bool,
    interval: Duration,
    notice: Option<(Instant, String)>,
    rows: Vec<Row>,
    /// Pool and name of the selected row.
    selected: Option<(String, String)>,
    /// Rows that the screen has room for.
    page: usize,
}

impl App {
    /// Returns the state before the first sample of the process at `place`, which must send one every `interval`.
    pub(super) fn new(place: String, interval: Duration) -> Self {
        Self {
            place,
            link: Link::Awaited,
            status: None,
            sample: None,
            rates: None,
            events: Vec::new(),
            sources: Vec::new(),
            listeners: Vec::new(),
            panel: Panel::Events,
            order: api::SessionSort::Bytes,
            listed: None,
            sessions: History::default(),
            bytes: History::default(),
            connect: History::default(),
            column: Column::Backend,
            reversed: false,
            filter: String::new(),
            mode: Mode::Table,
            printed: false,
            interval,
            notice: None,
            rows: Vec::new(),
            selected: None,
            page: 1,
        }
    }

    pub(super) fn on_news(&mut self, news: News, now: Instant) {
        match news {
            News::Reached(status) => self.on_status(status, now),
            News::Past(past) => self.on_past(&past),
            News::Sample(sample, events) => self.on_sample(sample, events, now),
            News::Sources(sources) => self.sources = sources,
            News::Listeners(listeners) => self.listeners = listeners,
            // An answer to an earlier wish would be shown under the wrong title.
            News::Sessions(order, sessions) if self.wanted_sessions() == Some(order) => {
                self.listed = Some((order, sessions));
            }
            News::Sessions(..) => {}
            News::Lost(why) => self.link = Link::Lost(one_line(&why)),
            News::Answer(words) => self.notice = Some((now, one_line(&words))),
        }
    }

    fn on_status(&mut self, status: Box<api::Status>, now: Instant) {
        let is_same = |known: &api::Status| (known.pid, known.started) == (status.pid, status.started);
        if self.status.as_deref().is_some_and(|known| !is_same(known)) {
            self.notice = Some((now, format!("l4lb was restarted: pid {}", status.pid)));
            // Its counters start again from zero.
            self.sample = None;
        }
        self.status = Some(status);
    }

    /// Fills the charts with what happened while none of it was seen.
    fn on_past(&mut self, past: &api::History) {
        // A stream that follows another without a hole has nothing to add.
        if self.sample.is_some() && matches!(self.link, Link::Live(_)) {
            return;
        }
        [self.sessions, self.bytes, self.connect] = rates::charts_of(past, self.interval);
        self.events.clone_from(&past.events);
    }

    fn on_sample(&mut self, sample: Box<api::Sample>, events: Vec<api::Event>, now: Instant) {
        (self.rows, self.rates) = rates::compare(self.sample.as_deref(), &sample);
        if let Some(rates) = self.rates {
            self.sessions.push(Some(rates.sessions));
            self.bytes.push(Some(rates.to_backend + rates.to_client));
            self.connect.push(sample.connect.p99.map(|seconds| seconds * 1e6));
        }
        self.link = Link::Live(now);
        self.events = events;
        self.sample = Some(sample);
    }

    /// Applies a key; returns an action for the caller to do, if any.
    pub(super) fn on_key(&mut self, key: Key, now: Instant) -> Option<KeyAction> {
        if key == Key::Interrupt {
            return Some(KeyAction::Quit);
        }
        match self.mode.clone() {
            Mode::Table => return self.on_table_key(key, now),
            Mode::Filter => self.on_filter_key(key),
            Mode::Confirm(change) => return self.on_answer(key, change, now),
            Mode::Help => self.mode = Mode::Table,
        }
        None
    }

    fn on_table_key(&mut self, key: Key, now: Instant) -> Option<KeyAction> {
        match key {
            Key::Up | Key::Char('k') => self.select(|at, _| at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(|at, _| at + 1),
            Key::PageUp => self.select(usize::saturating_sub),
            Key::PageDown => self.select(|at, page| at + page),
            Key::Home => self.select(|_, _| 0),
            Key::End => self.select(|_, _| usize::MAX),
            Key::Right | Key::Char('s') => self.column = self.column.moved(1),
            Key::Left => self.column = self.column.moved(Column::ALL.len() - 1),
            Key::Char('r') => self.reversed = !self.reversed,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char('d') => self.begin(api::Admin::Drain, now),
            Key::Char('y') => self.begin(api::Admin::Ready, now),
            Key::Char('m') => self.begin(api::Admin::Maint, now),
            Key::Char('v') => {
                self.panel = self.panel.next();
                self.listed = None;
            }
            Key::Char('o') => {
                self.panel = Panel::Sessions;
                self.order = order_after(self.order);
                self.listed = None;
            }
            Key::Char('x') => return self.dismiss(now),
            Key::Escape => self.filter.clear(),
            Key::Char('q') => return Some(KeyAction::Quit),
            Key::Enter | Key::Backspace | Key::Interrupt | Key::Char(_) => {}
        }
        None
    }

    fn on_filter_key(&mut self, key: Key) {
        match key {
            Key::Char(char) if self.filter.chars().count() < FILTER_LEN_MAX => self.filter.push(char),
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            Key::Enter => self.mode = Mode::Table,
            Key::Up => self.select(|at, _| at.saturating_sub(1)),
            Key::Down => self.select(|at, _| at + 1),
            Key::Left | Key::Right | Key::PageUp | Key::PageDown | Key::Home | Key::End => {}
            Key::Interrupt | Key::Char(_) => {}
        }
    }

    /// Only Enter confirms: a letter that is held down must not.
    fn on_answer(&mut self, key: Key, change: Change, now: Instant) -> Option<KeyAction> {
        match key {
            Key::Enter => {
                self.mode = Mode::Table;
                self.notice =
                    Some((now, format!("{} {}/{} ...", change.verb(), change.pool, change.backend)));
                Some(KeyAction::Change(change))
            }
            Key::Escape | Key::Char('n' | 'q') => {
                self.mode = Mode::Table;
                None
            }
            Key::Up | Key::Down | Key::Left | Key::Right | Key::PageUp | Key::PageDown => None,
            Key::Home | Key::End | Key::Backspace | Key::Interrupt | Key::Char(_) => None,
        }
    }

    /// Returns the order of the sessions to ask for; `None` while none are shown, as each question is one to all workers.
    pub(super) fn wanted_sessions(&self) -> Option<api::SessionSort> {
        (self.panel == Panel::Sessions).then_some(self.order)
    }

    /// Returns the refused reload that is still to be shown.
    pub(super) fn refusal(&self) -> Option<&api::RefusedReload> {
        self.status.as_ref()?.reload.shown_refusal()
    }

    /// Returns whether the token permits changes.
    pub(super) fn may_change(&self) -> bool {
        self.status.as_ref().is_none_or(|status| status.may_change)
    }

    fn dismiss(&mut self, now: Instant) -> Option<KeyAction> {
        let number = self.refusal()?.number;
        if !self.may_change() {
            self.notice = Some((now, READ_ONLY.to_owned()));
            return None;
        }
        Some(KeyAction::Dismiss(number))
    }

    fn begin(&mut self, admin: api::Admin, now: Instant) {
        if !self.may_change() {
            self.notice = Some((now, READ_ONLY.to_owned()));
            return;
        }
        let rows = self.rows();
        let Some(row) = rows.get(self.selected_in(&rows)) else { return };
        if let Link::Lost(_) = self.link {
            self.notice = Some((now, "no connection: nothing was changed".to_owned()));
            return;
        }
        let (pool, backend) = (row.backend.pool.clone(), row.backend.name.clone());
        self.mode = Mode::Confirm(Change { pool, backend, admin });
    }

    /// Selects the row that `to` returns for the index of the selected one and the number of rows per page.
    fn select(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let rows = self.rows();
        let to = to(self.selected_in(&rows), self.page).min(rows.len().saturating_sub(1));
        self.selected = rows.get(to).map(|row| (row.backend.pool.clone(), row.backend.name.clone()));
    }

    /// Sets how many rows the screen has room for.
    pub(super) fn set_page(&mut self, rows: usize) {
        self.page = rows.max(1);
    }

    /// Returns the backends that pass the filter, in order.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| is_wanted(&row.backend, &wanted)).collect();
        rows.sort_by(|one, other| {
            let by_name = || {
                let [one, other] = [one, other].map(|row| (&row.backend.pool, &row.backend.name));
                one.cmp(&other)
            };
            let order = self.column.compare(one, other).then_with(by_name);
            if self.reversed { order.reverse() } else { order }
        });
        rows
    }

    /// Returns the number of backends, whatever the filter, and how many of them no sample has.
    pub(super) fn backends(&self) -> (u64, u64) {
        let pools = self.sample.iter().flat_map(|sample| &sample.pools);
        let all = pools.map(|pool| pool.backends).sum();
        (all, all.saturating_sub(self.rows.len() as u64))
    }

    /// Returns the index of the selected row among `rows`; 0 when it has gone.
    pub(super) fn selected_in(&self, rows: &[&Row]) -> usize {
        let Some((pool, name)) = &self.selected else { return 0 };
        let is_it = |row: &&Row| row.backend.pool == *pool && row.backend.name == *name;
        rows.iter().position(is_it).unwrap_or(0)
    }

    /// Returns the last notice while it is fresh.
    pub(super) fn notice(&self, now: Instant) -> Option<&str> {
        let (since, words) = self.notice.as_ref()?;
        (now - *since < NOTICE_TIME).then_some(words.as_str())
    }

    /// Returns how long the process has been silent, once that is too long.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        let Link::Live(last) = self.link else { return None };
        Some(now - last).filter(|silence| *silence > 3 * self.interval)
    }
}

/// Returns the next order of sessions: by bytes, by age, by silence.
const fn order_after(order: api::SessionSort) -> api::SessionSort {
    match order {
        api::SessionSort::Bytes => api::SessionSort::Age,
        api::SessionSort::Age => api::SessionSort::Idle,
        api::SessionSort::Idle | api::SessionSort::Backend | api::SessionSort::Client => {
            api::SessionSort::Bytes
        }
    }
}

fn is_wanted(backend: &api::Backend, wanted: &str) -> bool {
    let name = format!("{}/{}", backend.pool, backend.name).to_lowercase();
    name.contains(wanted) || backend.address.contains(wanted) || state_words(backend).contains(wanted)
}

#[cfg(test)]
mod tests;
