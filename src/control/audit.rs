//! The audit log: one line for each change by operators and programs, whatever the level of the log.

use std::fmt;

use log::kv::Value;
use log::{Level, Record};

use crate::base::AUDIT;

/// Logs a change with these fields. The macros of `log` would drop it at level `off`, so the logger is called directly.
pub(super) fn write(message: fmt::Arguments<'_>, fields: &[(&str, Value<'_>)]) {
    let mut record = Record::builder();
    record.target(AUDIT).level(Level::Info).key_values(&fields);
    log::logger().log(&record.args(message).build());
}
