//! From root to an ordinary user: setuid(2), capabilities(7), prctl(2).

use std::io;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, setgid, setgroups, setuid};
use procfs::process::{Process, Status};

use crate::config::model::Account;

/// This process was root and no longer is.
static GAVE_UP_ROOT: AtomicBool = AtomicBool::new(false);

/// Ensures that no program started by this process gets more rights than it has: no setuid file, no file with
/// capabilities. Holds for the calling thread and threads started by it later.
pub fn renounce_new_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// Fails when there is no such user or group.
pub fn check_account(account: &Account) -> io::Result<()> {
    find(account).map(|_| ())
}

/// Becomes `account` for good, in all threads, without a capability left; returns at once when it is `account` already.
/// Fails without root. An error may leave the change half done: the process must end.
pub fn become_account(account: &Account) -> io::Result<()> {
    let (uid, gid) = find(account)?;
    if !geteuid().is_root() {
        return if (geteuid(), getegid()) == (uid, gid) {
            Ok(())
        } else {
            let what =
                format!("only root can, and this process is user {} of group {}", geteuid(), getegid());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
        };
    }
    // setgroups first, while it is allowed. The C library does each of the three in every thread, nptl(7).
    setgroups(&[gid])?;
    setgid(gid)?;
    setuid(uid)?;
    // proc(5): after a change of user only root may read the memory of the process, which holds tokens, and no core
    // dump is written. fs.suid_dumpable may say otherwise.
    prctl::set_dumpable(false)?;
    if uid.is_root() {
        return Ok(());
    }
    let has_more = |status: Status| status.euid != uid.as_raw() || status.capprm | status.capeff != 0;
    // capabilities(7): all are dropped with the last user ID that was 0, unless PR_SET_KEEPCAPS of prctl(2) is set.
    if threads().map_err(io::Error::other)?.into_iter().any(has_more) || setuid(Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("a thread has rights left"));
    }
    GAVE_UP_ROOT.store(true, Ordering::Release);
    Ok(())
}

/// Returns the status of all threads of this process.
fn threads() -> procfs::ProcResult<Vec<Status>> {
    Process::myself()?.tasks()?.map(|thread| thread?.status()).collect()
}

/// Makes `account` the owner of a file, a socket or a folder. Requires root, unless `account` owns it already.
pub fn give_to(account: &Account, path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = find(account)?;
    lchown(path, Some(uid.as_raw()), Some(gid.as_raw()))
}

/// Returns whether this process has the rights of root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Returns whether this process has become an ordinary user by [`become_account`]: it will never be root again.
pub fn has_given_up_root() -> bool {
    GAVE_UP_ROOT.load(Ordering::Acquire)
}

/// Returns the user of this process: a name, or the number when it has none.
pub fn user_name() -> String {
    let uid = geteuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

pub(super) fn find(account: &Account) -> io::Result<(Uid, Gid)> {
    let absent = |what: String| io::Error::new(io::ErrorKind::NotFound, what);
    let user = User::from_name(&account.user)?;
    let user = user.ok_or_else(|| absent(format!("there is no user {:?}", account.user)))?;
    let Some(name) = &account.group else { return Ok((user.uid, user.gid)) };
    let group = Group::from_name(name)?.ok_or_else(|| absent(format!("there is no group {name:?}")))?;
    Ok((user.uid, group.gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str, group: Option<&str>) -> Account {
        Account { user: user.into(), group: group.map(str::to_owned) }
    }

    // Switching users is tested by `scripts/checks/service.sh`: here other tests of this process would continue as that
    // user.
    #[test]
    fn a_user_that_does_not_exist_is_refused() {
        let error = |account: &Account| become_account(account).unwrap_err().to_string();
        assert_eq!(error(&account("no-such-user", None)), "there is no user \"no-such-user\"");
        assert_eq!(error(&account("root", Some("no-such-group"))), "there is no group \"no-such-group\"");
    }
}
