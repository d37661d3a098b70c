//! From root to an ordinary user: setuid(2), capabilities(7), prctl(2).

use std::io;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, setgid, setgroups, setuid};
use procfs::process::{Process, Status};

use crate::config::model::Account;

/// This process was root and is not any more.
static GAVE_UP_ROOT: AtomicBool = AtomicBool::new(false);

/// Lets no program that this process might start have more rights than it has itself: no setuid file, no file with
/// capabilities. For the calling thread and those that it starts.
pub fn renounce_new_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// Fails when there is no such user or group.
pub fn check_account(account: &Account) -> io::Result<()> {
    find(account).map(|_| ())
}

/// Becomes `account` for good, in all threads, without a capability left; or is it already. An error leaves the process
/// half way: it has to end. Whoever is not root cannot become anybody.
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
    // setgroups first, while it is allowed to. The C library does each of the three in every thread, nptl(7).
    setgroups(&[gid])?;
    setgid(gid)?;
    setuid(uid)?;
    // proc(5): after a change of user nobody but root may look at the memory of the process, which holds tokens, and no core
    // dump is written. fs.suid_dumpable may say otherwise.
    prctl::set_dumpable(false)?;
    if uid.is_root() {
        return Ok(());
    }
    let has_more = |status: Status| status.euid != uid.as_raw() || status.capprm | status.capeff != 0;
    // capabilities(7): all go with the last user ID that was 0, but for prctl(2), PR_SET_KEEPCAPS.
    if threads().map_err(io::Error::other)?.into_iter().any(has_more) || setuid(Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("a thread has rights left"));
    }
    GAVE_UP_ROOT.store(true, Ordering::Release);
    Ok(())
}

/// All threads of this process.
fn threads() -> procfs::ProcResult<Vec<Status>> {
    Process::myself()?.tasks()?.map(|thread| thread?.status()).collect()
}

/// Makes `account` the owner of a file, a socket or a folder. Only root can; whoever is that user already need not.
pub fn give_to(account: &Account, path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = find(account)?;
    lchown(path, Some(uid.as_raw()), Some(gid.as_raw()))
}

/// Whether this process has the rights of root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Whether this process has become an ordinary user by [`become_account`]: it will never be root again.
pub fn has_given_up_root() -> bool {
    GAVE_UP_ROOT.load(Ordering::Acquire)
}

/// Who this process is: a name, or a number that has none.
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

    // To become somebody is for `scripts/checks/service.sh`: other tests of this process would go on as that.
    #[test]
    fn who_does_not_exist_is_nobody_to_become() {
        let error = |account: &Account| become_account(account).unwrap_err().to_string();
        assert_eq!(error(&account("no-such-user", None)), "there is no user \"no-such-user\"");
        assert_eq!(error(&account("root", Some("no-such-group"))), "there is no group \"no-such-group\"");
    }
}
