//! Reads back the log line of each session.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    static TOLD: RefCell<Vec<Reported>> = const { RefCell::new(Vec::new()) };
    static IS_LOUD: Cell<bool> = const { Cell::new(false) };
}

/// The log line of an ended session.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    pub(crate) client: SocketAddr,
    pub(crate) pool: String,
    pub(crate) reason: String,
    pub(crate) retries: u64,
    pub(crate) to_backend: u64,
    pub(crate) to_client: u64,
    pub(crate) is_connected: bool,
}

/// Starts to collect; `is_loud` also prints every line.
pub(crate) fn listen(is_loud: bool) {
    // Other threads of the sweep have done it already, or will find it done.
    let _first = log::set_logger(&Listener);
    log::set_max_level(LevelFilter::Trace);
    IS_LOUD.set(is_loud);
    TOLD.take();
}

/// Returns the lines of this thread since the last call.
pub(crate) fn take() -> Vec<Reported> {
    TOLD.take()
}

struct Listener;

impl Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "l4lb::session" || IS_LOUD.get()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut fields = Fields::default();
        record.key_values().visit(&mut fields).expect("no field fails");
        if IS_LOUD.get() {
            eprintln!("{:>22} {} {}", record.level(), record.args(), fields.text);
        }
        if record.target() == "l4lb::session" {
            TOLD.with_borrow_mut(|reported| reported.push(fields.reported()));
        }
    }

    fn flush(&self) {}
}

#[derive(Default)]
struct Fields {
    text: String,
    client: Option<SocketAddr>,
    pool: String,
    reason: String,
    retries: u64,
    to_backend: u64,
    to_client: u64,
    is_connected: bool,
}

impl Fields {
    fn reported(self) -> Reported {
        let Self { pool, reason, retries, to_backend, to_client, is_connected, .. } = self;
        let client = self.client.expect("every session has a client");
        Reported { client, pool, reason, retries, to_backend, to_client, is_connected }
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if IS_LOUD.get() {
            self.text += &format!("{key}={value} ");
        }
        match key.as_str() {
            "client" => self.client = value.to_string().parse().ok(),
            "pool" => self.pool = value.to_string(),
            "reason" => self.reason = value.to_string(),
            "retries" => self.retries = value.to_u64().expect("a count"),
            "to_backend" => self.to_backend = value.to_u64().expect("a count"),
            "to_client" => self.to_client = value.to_u64().expect("a count"),
            "connect_ms" => self.is_connected = value.to_f64().is_some(),
            _ => {}
        }
        Ok(())
    }
}
