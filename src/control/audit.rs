//! What operators and programs have changed: one line of the log for each change, whatever the level of the log is.

use std::fmt;

use log::kv::Value;
use log::{Level, Record};

use crate::base::AUDIT;

/// Logs a change with these fields. The macros of `log` would leave it out where the level of the log is `off`, so the
/// logger is called directly.
pub(super) fn write(message: fmt::Arguments<'_>, fields: &[(&str, Value<'_>)]) {
    let mut record = Record::builder();
    record.target(AUDIT).level(Level::Info).key_values(&fields);
    log::logger().log(&record.args(message).build());
}
