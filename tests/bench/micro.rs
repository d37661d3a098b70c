//! What the pieces cost that every session, message or timer passes through: picks, the timer wheel, the machine of a
//! session. No sockets: what those cost is the kernel's, and `scripts/profile.sh` separates it from ours.
//!
//! `cargo bench --bench micro` measures, `cargo bench --bench micro -- pick` only picks;
//! `cargo test --bench micro` runs each bench once, so that none rots.
//!
//! Where a first run finds everything cold, the size of a sample is given: divan would take that run for the rule.

mod picks;
mod sessions;
mod timers;

fn main() {
    divan::main();
}
