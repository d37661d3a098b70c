//! Resource usage of the process, as the kernel counts it: proc_pid_stat(5), proc_pid_fd(5), proc_pid_limits(5).

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, rlim_t};
use procfs::process::Process;

/// Resource usage of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all threads, in user mode and in the kernel.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Mapped memory, in bytes, whether resident or not.
    pub mapped: u64,
    /// Number of open descriptors of the process.
    pub open_files: u64,
    /// The limit of open descriptors; `None` is no limit.
    pub open_files_max: Option<u64>,
    /// Number of threads of the process.
    pub threads: u64,
}

/// Returns the present usage. Takes time in proportion to the number of open descriptors.
pub fn usage() -> io::Result<Usage> {
    let stat = Process::myself().and_then(|myself| myself.stat()).map_err(io::Error::other)?;
    let ticks = stat.utime + stat.stime;
    // The listing itself is open while it is read.
    let open_files = std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1);
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(Usage {
        cpu: Duration::from_secs(ticks)
            / u32::try_from(procfs::ticks_per_second()).map_err(io::Error::other)?,
        resident: stat.rss * procfs::page_size(),
        mapped: stat.vsize,
        open_files: open_files as u64,
        open_files_max: (limit != rlim_t::MAX).then_some(limit),
        threads: u64::try_from(stat.num_threads).map_err(io::Error::other)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_file_is_one_more() {
        // Other tests of this process open files too, but never a thousand.
        let before = usage().unwrap().open_files;
        let files: Vec<_> = (0..1000).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let now = usage().unwrap();
        assert!(now.open_files.abs_diff(before) > 500, "{before} -> {now:?}");
        assert!(now.open_files_max.is_none_or(|max| max >= now.open_files));
        assert!(now.threads > 0 && now.resident > 0 && now.mapped >= now.resident);
        drop(files);
    }
}
