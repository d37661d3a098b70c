//! What belongs to the process: limits, processors, signals.

use std::io;

use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Files that this process may open once it has raised its limit as far as it may.
pub fn open_files_max() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

/// Raises the limit of open files as far as it may go, and returns it.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Bytes that the pipes of this user may have room for in all processes together, unless there is no such limit. That of
/// an ordinary user, if that is what the process will become (`is_to_drop`).
/// pipe(7), pipe-user-pages-soft: in pages; 0 is none, and either capability lifts it. The kernel wants them in the
/// first user namespace: in another it denies later what is not limited here.
pub fn pipe_bytes_max(is_to_drop: bool) -> io::Result<Option<u64>> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let capabilities = if is_to_drop { 0 } else { status()?.capeff };
    let text = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft")?;
    let pages: u64 = text.trim().parse().map_err(io::Error::other)?;
    let is_lifted = pages == 0 || capabilities & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE) != 0;
    Ok((!is_lifted).then(|| pages.saturating_mul(procfs::page_size())))
}

/// Binds the calling thread to the `index`-th of the processors that it may use, counted round; returns which.
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

/// Whether writing to a connection that is gone fails instead of ending the process.
/// Rust ignores SIGPIPE before `main`; splice(2) has no flag of its own for it.
pub fn sigpipe_is_ignored() -> io::Result<bool> {
    Ok(status()?.sigign >> (libc::SIGPIPE - 1) & 1 == 1)
}

fn status() -> io::Result<procfs::process::Status> {
    procfs::process::Process::myself().and_then(|myself| myself.status()).map_err(io::Error::other)
}
