//! Settings of the process: limits, processors, signals.

use std::io;

use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Returns the number of files that this process may open once its limit is raised.
pub fn open_files_max() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

/// Raises the limit of open files as far as possible, and returns it.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Returns the limit in bytes on all pipes of this user together, over all processes; `None` when there is no limit.
/// With `is_to_drop` the limit of an ordinary user, which this process will become.
/// pipe(7), pipe-user-pages-soft: in pages; 0 is no limit, and either capability lifts it. The kernel requires them in
/// the first user namespace: in another one it later denies pipes that seem unlimited here.
pub fn pipe_bytes_max(is_to_drop: bool) -> io::Result<Option<u64>> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let capabilities = if is_to_drop { 0 } else { status()?.capeff };
    let text = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft")?;
    let pages: u64 = text.trim().parse().map_err(io::Error::other)?;
    let is_lifted = pages == 0 || capabilities & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE) != 0;
    Ok((!is_lifted).then(|| pages.saturating_mul(procfs::page_size())))
}

/// Binds the calling thread to the `index`-th processor, modulo their number, of those it may use; returns which one.
pub fn pin_thread(index: usize) -> io::Result<usize> {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let processors: Vec<usize> =
        (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
    let chosen = processors[index % processors.len()];
    let mut only = CpuSet::new();
    only.set(chosen)?;
    sched_setaffinity(this_thread, &only)?;
    Ok(chosen)
}

/// Returns whether a write to a dead connection fails instead of ending the process. Rust ignores SIGPIPE before
/// `main`; splice(2) has no flag of its own for it.
pub fn sigpipe_is_ignored() -> io::Result<bool> {
    Ok(status()?.sigign >> (libc::SIGPIPE - 1) & 1 == 1)
}

fn status() -> io::Result<procfs::process::Status> {
    procfs::process::Process::myself().and_then(|myself| myself.status()).map_err(io::Error::other)
}
