//! The points that a sweep has reached. A simulation that never gets somewhere proves nothing about it.

use std::collections::BTreeMap;

use l4lb::session::CloseReason;

/// Every op with every outcome that the kernel can produce, every result of a dial and an accept, every change of a
/// backend's health, and every action of an operator on backends.
const REQUIRED: &[&str] = &[
    "Fill Moved",
    "Fill Drained",
    "Fill WouldBlock",
    "Fill Eof",
    "Fill Failed",
    "Flush Moved",
    "Flush WouldBlock",
    "Flush Failed",
    "Flush of the last",
    "header with bytes",
    "header in pieces",
    "header taken",
    "Preread",
    "Preread of a part",
    "Preread with payload",
    "Preread Eof",
    "Preread of the last",
    "Preread of a false end",
    "Preread of a hello that was left",
    "Preread Failed",
    "client refused",
    "client denied",
    "request taken",
    "TLS granted",
    "TLS refused",
    "answer stuffed",
    "ShutdownWrite Done",
    "ShutdownWrite Failed",
    "TakeError Done",
    "TakeError Failed",
    "AskUnread Done",
    "AskUnread Unread",
    "AskUnacked Done",
    "AskUnacked Unacked",
    "AskDelivery done",
    "AskDelivery waiting",
    "AskSilence Done",
    "AskSilence Silent",
    "dial Pending",
    "dial Connected",
    "dial ToItself",
    "dial Lost",
    "dial for bytes of the dead",
    "redial for bytes of the dead",
    "dial Failed",
    "kept alive",
    "no port left",
    "accept EAGAIN",
    "accept EMFILE",
    "accept ENFILE",
    "accept ENOBUFS",
    "accept ENOMEM",
    "accept ECONNABORTED",
    "accept EPROTO",
    "accept EINVAL",
    "unknown to up",
    "unknown to down",
    "up to down",
    "down to up",
    "Fill spliced",
    "splice WouldBlock",
    "spliced end",
    "copy to splice",
    "splice to copy",
    "pipe EMFILE",
    "pipe EPERM",
    "pipe granted",
    "pipe granted smaller",
    "pipe granted behind a denial",
    "pipe reclaimed",
    "backend ready",
    "backend drained",
    "backend in maint",
    "weight changed",
    "health overridden",
    "health as checked",
    "backend added",
    "backend back",
    "backend removed",
    "backend cut",
    "list longer",
    "list shorter",
    "list empty",
    "list in another order",
    "list with another weight",
    "list with another priority",
    "list again",
    "list replaced",
    "moves to another source",
    "listed again within the drain",
    "a list while a session waits",
    "a list in the middle of a reload",
    "leaves with sessions",
    "leaves in the middle of a dial",
    "leaves in the middle of a check",
    "file takes over",
    "source takes over",
    "source removed",
    "source changed",
    "source is back",
    "reconfigured",
    "checks changed",
    "checks off",
    "pool retired",
    "pool restored",
    "retired pool serves",
    "retired pool forgotten",
    "asked for sessions",
    "explanation of a live session",
    "explanation of an ended session",
    "passed over",
    "later tier",
    "listener added",
    "listener put back",
    "listener removed",
    "late handshake",
    "workers come",
    "workers leave",
    "handed over",
    "budget exhausted",
    "full turn",
    "flood",
    "stale event",
    "lost event found",
    "bytes lost",
    "room lost",
    "end lost",
    "death lost",
    "check deferred",
    "check waits",
    "slow check",
    "oversized answer",
    "further check",
    "reason reported",
    "counted before the end",
    "agent answered",
    "agent lost",
    "agent forgotten",
    "agent floods",
    "agent says half a line",
    "agents changed",
    "program passes",
    "program fails",
    "program dies",
    "program hangs",
    "program put off",
    "program lost",
    "program answers too late",
];

/// How often each point was reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn hit(&mut self, point: &'static str) {
        *self.0.entry(point).or_default() += 1;
    }

    pub(crate) fn hit_if(&mut self, reached: bool, point: &'static str) {
        if reached {
            self.hit(point);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (point, count) in &other.0 {
            *self.0.entry(point).or_default() += count;
        }
    }

    /// Returns the required points that were not reached.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let reasons = CloseReason::ALL.into_iter().map(CloseReason::as_str);
        REQUIRED.iter().copied().chain(reasons).filter(|point| !self.0.contains_key(point)).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(point, count)| writeln!(f, "{point:<24} {count:>12}"))
    }
}
