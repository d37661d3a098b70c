//! Programs that this process runs: each in a process group of its own, with one pipe for what it prints, nothing to
//! read, and no descriptor of ours. None is started by a shell.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, killpg, signal};
use nix::unistd::{Pid, geteuid};

use crate::config::model::Account;
use crate::sys::preflight::{Use, may_use};
use crate::sys::{is_exhausted, privileges};

/// Where a program finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running program. Dropped, its process group is killed.
#[derive(Debug)]
pub struct Program {
    child: Child,
    group: Pid,
    /// Readable once the program has ended: pidfd_open(2).
    ended: OwnedFd,
    printed: PipeReader,
    is_over: bool,
}

/// How a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Program {
    /// Starts the program `command[0]` with the rest as its arguments, in the folder `/`, with a search path and
    /// `variables` as its whole environment.
    ///
    /// posix_spawn(3), which the standard library uses here, shares the memory until the exec: a fork would copy the
    /// page tables, and hold up the page faults of all other threads meanwhile.
    pub fn start(command: &[String], variables: &[(&str, String)]) -> io::Result<Self> {
        let Some((path, arguments)) = command.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        hide_descriptors();
        let (printed, printer) = io::pipe()?;
        fcntl(&printed, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        #[cfg(test)]
        let _alone = none_starts();
        let child = Command::new(path)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(printer.try_clone()?)
            .stderr(printer)
            .process_group(0)
            .spawn()?;
        let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        match open_pid(group) {
            Ok(ended) => Ok(Self { child, group, ended, printed, is_over: false }),
            Err(error) => {
                let mut child = child;
                let killed = killpg(group, Signal::SIGKILL);
                debug_assert!(killed.is_ok(), "its group is as old as the program");
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Reads from what it has printed. Returns 0 at its end; never waits.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.printed.read(buffer)
    }

    /// Returns how the program has ended, if it has; what it has left behind in its group is killed then.
    pub fn try_exit(&mut self) -> io::Result<Option<Exit>> {
        if !has_events([self.ended.as_fd()], Some(Duration::ZERO))? {
            return Ok(None);
        }
        // Before it is reaped: until then its number cannot belong to another process.
        self.kill();
        self.is_over = true;
        let status = self.child.wait()?;
        Ok(Some(
            status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or_default()), Exit::Status),
        ))
    }

    /// Kills all processes of its group.
    pub fn kill(&self) {
        if self.is_over {
            return;
        }
        match killpg(self.group, Signal::SIGKILL) {
            // EPERM: all that is left of it runs as another user.
            Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
            Err(error) => log::warn!(group = self.group.as_raw(), error:%; "cannot kill a check"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        // What cannot be reaped at once is left to the end of the process.
        if let Err(error) = self.child.try_wait() {
            log::warn!(group = self.group.as_raw(), error:%; "cannot reap a check");
        }
    }
}

/// Lets no program start while it is held. Until its exec(2) a program has every descriptor of this process: what a test
/// closes meanwhile stays open.
#[cfg(test)]
pub(crate) fn none_starts() -> std::sync::MutexGuard<'static, ()> {
    static STARTING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes every descriptor of this process close-on-exec. Ours are from the start; this process may have inherited
/// others. close_range(2), from Linux 5.11 on.
fn hide_descriptors() {
    const FIRST: u32 = 3;
    // SAFETY: the call takes three numbers, and changes a flag that no thread of this process depends on.
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    let result = Errno::result(unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    });
    if let Err(error) = result {
        static WARNED: Once = Once::new();
        WARNED.call_once(
            || log::warn!(error:%; "cannot hide inherited descriptors from the programs of checks"),
        );
    }
}

/// Makes the kernel keep the status of a child until it is taken: a supervisor may have this process ignore SIGCHLD, which
/// outlasts execve(2). Fails with what sigaction(2) reports.
pub fn reap_own_children() -> io::Result<()> {
    // SAFETY: the default action runs no code.
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    unsafe {
        signal(Signal::SIGCHLD, SigHandler::SigDfl)?;
    }
    Ok(())
}

/// pidfd_open(2), which the C library of many systems does not have yet.
fn open_pid(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers. It returns a new descriptor, close-on-exec, which nothing else owns.
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0))?;
        Ok(OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?))
    }
}

/// Ends a wait for programs from another thread.
#[derive(Debug)]
pub struct Bell(UnixStream);

/// Waits for programs, and for its [`Bell`].
#[derive(Debug)]
pub struct Waiter(UnixStream);

impl Bell {
    /// Returns both ends.
    pub fn new() -> io::Result<(Self, Waiter)> {
        let (ringing, waiting) = UnixStream::pair()?;
        ringing.set_nonblocking(true)?;
        waiting.set_nonblocking(true)?;
        Ok((Self(ringing), Waiter(waiting)))
    }

    /// Ends the present wait, or the next one.
    pub fn ring(&self) {
        // Full, it has been rung already; without a waiter nothing waits.
        let _rung = (&self.0).write(&[0]);
    }
}

impl Waiter {
    /// Waits until one of `programs` has ended or, where its flag is set, has printed something; until the bell is rung,
    /// or until `limit` has passed.
    pub fn wait<'p>(
        &self,
        programs: impl IntoIterator<Item = (&'p Program, bool)>,
        limit: Option<Duration>,
    ) -> io::Result<()> {
        let of_program = |(program, is_read): (&'p Program, bool)| {
            [Some(program.ended.as_fd()), is_read.then(|| program.printed.as_fd())]
        };
        let of_programs = programs.into_iter().flat_map(of_program).flatten();
        if has_events([self.0.as_fd()].into_iter().chain(of_programs), limit)? {
            while (&self.0).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        }
        Ok(())
    }
}

/// Waits for an event of one of these descriptors, at most so long; returns whether there is one.
fn has_events<'f>(
    of: impl IntoIterator<Item = std::os::fd::BorrowedFd<'f>>,
    limit: Option<Duration>,
) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> = of.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    // Rounded up: a wait that ends just before its limit would be repeated until then.
    let limit = limit.map(|limit| limit.saturating_add(Duration::from_nanos(999_999)).as_millis());
    let limit =
        limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
    match poll(&mut fds, limit) {
        Ok(events) => Ok(events > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Fails unless `account`, or without one this process, may run the program at `path`, and only root and that user may
/// change it.
pub fn may_run(account: Option<&Account>, path: &Path) -> io::Result<()> {
    const WRITABLE_BY_OTHERS: u32 = 0o002;
    let account = account.filter(|_| privileges::is_root());
    let user = account.map(privileges::find).transpose()?.map_or_else(geteuid, |(user, _)| user);
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    may_use(account, path, Use::Run)?;
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(io::Error::other("any user may write to it"));
    }
    if metadata.uid() != 0 && metadata.uid() != user.as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    Ok(())
}

/// Returns whether a program was not started because this machine lacks something for a while: fork(2) EAGAIN and
/// ENOMEM, and execve(2) ETXTBSY while it is being replaced.
pub fn lacks_for_program(error: &io::Error) -> bool {
    is_exhausted(error) || matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ETXTBSY))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Program {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        Program::start(&command, &[("L4LB_POOL", "web".to_owned())]).unwrap()
    }

    /// Returns how the program ends, and all that it prints.
    fn outcome(program: &mut Program) -> (Exit, String) {
        let (_bell, waiter) = Bell::new().unwrap();
        let (mut printed, mut buffer) = (Vec::new(), [0; 256]);
        loop {
            waiter.wait([(&*program, true)], Some(PATIENCE)).unwrap();
            let exit = program.try_exit().unwrap();
            while let Ok(count @ 1..) = program.read(&mut buffer) {
                printed.extend_from_slice(&buffer[..count]);
            }
            if let Some(exit) = exit {
                return (exit, String::from_utf8(printed).unwrap());
            }
        }
    }

    #[test]
    fn a_program_ends_with_its_status_and_what_it_printed() {
        assert_eq!(
            outcome(&mut shell("echo out; echo err >&2; exit 3")),
            (Exit::Status(3), "out\nerr\n".into())
        );
        assert_eq!(outcome(&mut shell("kill -9 $$")).0, Exit::Signal(9));
    }

    #[test]
    fn a_program_has_a_small_environment_no_input_and_no_other_descriptor() {
        let (_, printed) = outcome(&mut shell("env; pwd; read x || echo none; echo fd; ls /proc/self/fd"));
        let mut lines: Vec<&str> = printed.lines().filter(|line| !line.starts_with("PWD=")).collect();
        // The last one is the folder that ls reads.
        assert_eq!(lines.split_off(lines.len() - 5), ["fd", "0", "1", "2", "3"]);
        lines.retain(|line| {
            !line.starts_with("_=") && !line.starts_with("OLDPWD=") && !line.starts_with("SHLVL=")
        });
        lines.sort_unstable();
        assert_eq!(lines, ["/", "L4LB_POOL=web", &format!("PATH={PATH}"), "none"]);
    }

    #[test]
    fn a_killed_program_takes_its_children_with_it() {
        let mut program = shell("sleep 1000 & echo started; wait");
        let (_bell, waiter) = Bell::new().unwrap();
        waiter.wait([(&program, true)], Some(PATIENCE)).unwrap();
        assert!(program.read(&mut [0; 64]).unwrap() > 0);
        program.kill();
        assert_eq!(outcome(&mut program).0, Exit::Signal(9));
        // Only once all who could write have gone there is an end.
        waiter.wait([(&program, true)], Some(PATIENCE)).unwrap();
        while program.read(&mut [0; 64]).map_err(|error| error.kind()) == Err(io::ErrorKind::WouldBlock) {}
        assert_eq!(program.read(&mut [0; 64]).unwrap(), 0);
    }

    #[test]
    fn what_a_program_leaves_behind_is_killed_when_it_ends() {
        let mut program = shell("sleep 1000 & echo $!");
        let (exit, left) = outcome(&mut program);
        assert_eq!(exit, Exit::Status(0));
        let state = format!("/proc/{}/stat", left.trim());
        let is_dead = || std::fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z "));
        while !is_dead() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_that_others_could_change_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("check");
        assert_eq!(may_run(None, &path).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        for (mode, is_fine) in [(0o755, true), (0o700, true), (0o757, false), (0o644, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(may_run(None, &path).is_ok(), is_fine, "{mode:o}");
        }
        assert_eq!(may_run(None, folder.path()).unwrap_err().to_string(), "it is no file");
    }

    #[test]
    fn a_missing_program_is_no_shortage() {
        let start = |path: &str| Program::start(&[path.to_owned()], &[]).unwrap_err();
        assert!(!lacks_for_program(&start("/no/such/program")) && !lacks_for_program(&start("/")));
        for error in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ETXTBSY] {
            assert!(lacks_for_program(&io::Error::from_raw_os_error(error)));
        }
    }
}
