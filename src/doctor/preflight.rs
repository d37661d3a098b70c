//! Predicts what a start or a reload of one configuration meets on this machine: files, rights, addresses. Resources
//! held by the running l4lb itself are no finding.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::figures::folder_of;
use super::finding::{Finding, Verdict};
use crate::config::Config;
use crate::config::model::{Account, AdminSocket, Check};
use crate::config::warnings;
use crate::control::admin;
use crate::control::membership::state_file::Contents;
use crate::sys::{self, AddressHolder, Use};

const NO_START: &str = "l4lb does not start with it";

/// Returns every problem of `config`, which is in `file`.
pub(crate) fn preflight(config: &Config, file: Option<&Path>) -> Vec<Finding> {
    let mut found = Vec::new();
    let account = account(config, &mut found);
    if let (Some(file), Some(_)) = (file, account) {
        let readable = sys::may_use(account, file, Use::Read);
        let consequence = "it starts as root and reads it then; no reload can";
        note(
            &mut found,
            "configuration",
            readable,
            consequence,
            "chgrp it to the group of the user, chmod 640",
        );
    }
    files(config, account, &mut found);
    programs(config, account, &mut found);
    addresses(config, file, &mut found);
    admin_socket(config, file, &mut found);
    found.extend(warnings(config).into_iter().map(|what| Finding {
        name: "configuration",
        verdict: Verdict::Warn,
        found: what,
        consequence: None,
        remedy: None,
    }));
    found
}

/// Returns the user that opens files after the start; `None` is the user that starts the process.
fn account<'c>(config: &'c Config, found: &mut Vec<Finding>) -> Option<&'c Account> {
    let account = config.global.user.as_ref()?;
    if let Err(error) = sys::check_account(account) {
        found.push(fail("user", error.to_string(), NO_START, "adduser --system, or another [global] user"));
        return None;
    }
    Some(account)
}

fn files(config: &Config, account: Option<&Account>, found: &mut Vec<Finding>) {
    if config.admin.listen.is_some() {
        let tokens = admin::check_tokens(&config.admin);
        note(found, "token_file", tokens, NO_START, "(umask 077; openssl rand -hex 16 > FILE)");
    }
    if let Some(access) = &config.global.access_log {
        let result = can_log(&access.path, account);
        note(
            found,
            "access_log",
            result,
            NO_START,
            "make its folder, and give it to the user that l4lb runs as",
        );
    }
    if let Some(path) = &config.admin.state_file {
        let remedy = "StateDirectory=l4lb in the unit, or a folder of the user that l4lb runs as";
        match Contents::read(path) {
            Err(error) => found.push(fail("state_file", error.to_string(), NO_START, remedy)),
            Ok(contents) => found.extend(contents.refused.into_iter().map(|refused| Finding {
                name: "state_file",
                verdict: Verdict::Warn,
                found: format!("{}: {refused}", path.display()),
                consequence: Some("l4lb starts without this entry".into()),
                remedy: Some("correct it, or leave it to be dropped".into()),
            })),
        }
        let writable = named(folder_of(path), sys::may_use(account, folder_of(path), Use::Write));
        note(found, "state_file", writable, "nothing is kept over a restart", remedy);
    }
}

fn programs(config: &Config, account: Option<&Account>, found: &mut Vec<Finding>) {
    for pool in &config.pools {
        for check in pool.health.checks() {
            let Check::Command(command) = check.check else { continue };
            let path = Path::new(command.first().map_or("", String::as_str));
            let result = sys::may_run(account, path).map_err(|error| {
                io::Error::new(error.kind(), format!("pool {:?}: {}: {error}", pool.name, path.display()))
            });
            let consequence = "its backends go down";
            let remedy = "chown root and chmod 755 the program, or correct its path";
            note(found, "command", result, consequence, remedy);
        }
    }
}

fn can_log(path: &Path, account: Option<&Account>) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            named(folder_of(path), sys::may_use(account, folder_of(path), Use::Write))
        }
        Err(error) => named(path, Err(error)),
        Ok(metadata) if metadata.is_dir() => named(path, Err(io::ErrorKind::IsADirectory.into())),
        Ok(metadata) if metadata.is_symlink() => {
            named(path, Err(io::Error::other("it is a symbolic link, which is not followed")))
        }
        Ok(_) => named(path, sys::may_use(account, path, Use::Write)),
    }
}

fn addresses(config: &Config, file: Option<&Path>, found: &mut Vec<Finding>) {
    let listeners =
        config.listeners.iter().map(|listener| (format!("listener {}", listener.name), listener.bind));
    let admin = [("admin listen", config.admin.listen), ("admin metrics", config.admin.metrics)];
    let admin = admin.into_iter().filter_map(|(name, address)| Some((name.to_owned(), address?)));
    for (what, address) in listeners.chain(admin).filter(|(_, address)| address.port() != 0) {
        let Err(error) = sys::try_bind(address) else { continue };
        found.extend(of_address(&what, address, &error, file));
    }
}

fn of_address(what: &str, address: SocketAddr, error: &io::Error, file: Option<&Path>) -> Option<Finding> {
    const NAME: &str = "address";
    let found = format!("{what}: {address}: {error}");
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        return match sys::port_holder(address, file) {
            AddressHolder::Ourselves => None,
            AddressHolder::Another(holder) => {
                let found = format!("{what}: {address} is in use, held by {holder}");
                Some(fail(NAME, found, NO_START, "another port, or stop the other one"))
            }
            AddressHolder::Hidden => Some(Finding {
                name: NAME,
                verdict: Verdict::Warn,
                found: format!("{what}: {address} is in use by a process that this user may not see"),
                consequence: Some("unless that is the running l4lb, it does not start".into()),
                remedy: Some(format!("as root: ss -ltnp sport = :{}", address.port())),
            }),
        };
    }
    let (consequence, remedy) = if kind == io::ErrorKind::AddrNotAvailable {
        ("no interface has it: l4lb does not start", "an address of this machine, see ip addr")
    } else if kind == io::ErrorKind::PermissionDenied {
        (
            "a port below 1024 is for root: l4lb does not start as this user",
            "start as root with [global] user, or AmbientCapabilities=CAP_NET_BIND_SERVICE",
        )
    } else {
        (NO_START, "another address")
    };
    Some(fail(NAME, found, consequence, remedy))
}

fn admin_socket(config: &Config, file: Option<&Path>, found: &mut Vec<Finding>) {
    let AdminSocket::At(path) = &config.admin.socket else { return };
    let what = path.display();
    let is_socket = |path: &Path| {
        use std::os::unix::fs::FileTypeExt;
        path.symlink_metadata().map(|metadata| metadata.file_type().is_socket())
    };
    match (is_socket(path), sys::socket_holder(path, file)) {
        (Ok(false), _) => {
            found.push(fail(
                "admin socket",
                format!("{what} is there, and it is no socket"),
                NO_START,
                "another path",
            ));
        }
        (_, Some(AddressHolder::Another(holder))) => {
            let words = format!("{what} is taken: {holder} answers there");
            found.push(fail(
                "admin socket",
                words,
                NO_START,
                "another [admin] socket, or stop the other one",
            ));
        }
        (Ok(true) | Err(_), Some(AddressHolder::Ourselves | AddressHolder::Hidden) | None) => {}
    }
}

fn fail(name: &'static str, found: String, consequence: &str, remedy: &str) -> Finding {
    let (consequence, remedy) = (Some(consequence.to_owned()), Some(remedy.to_owned()));
    Finding { name, verdict: Verdict::Fail, found, consequence, remedy }
}

fn note(
    found: &mut Vec<Finding>,
    name: &'static str,
    result: io::Result<()>,
    consequence: &str,
    remedy: &str,
) {
    found.extend(result.err().map(|error| fail(name, error.to_string(), consequence, remedy)));
}

fn named(path: &Path, result: io::Result<()>) -> io::Result<()> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::config::{Overrides, parse};

    /// Returns the findings for a file with these keys.
    fn found(bind: SocketAddr, global: &str, admin: &str) -> Vec<(&'static str, Verdict, String)> {
        let text = format!(
            "[global]\n{global}\n[admin]\n{admin}\n[[listener]]\nbind = \"{bind}\"\n\
             [[pool]]\nbackend = [{{ address = \":1\" }}]\n"
        );
        let config = parse(&text, "x.toml", &Overrides::default(), &mut |_| Ok(Vec::new())).unwrap();
        preflight(&config, None).into_iter().map(|found| (found.name, found.verdict, found.found)).collect()
    }

    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// All of these passed both checks, and ended the start or a reload.
    #[test]
    fn obstacles_to_a_start_are_found_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = UnixListener::bind(path("taken.sock")).unwrap();
        fs::write(path("token"), "0123456789abcdef").unwrap();
        fs::write(path("broken.json"), "no JSON").unwrap();
        let token = |name: &str| format!("listen = \"{}\"\ntoken_file = {:?}", free(), path(name));
        for (global, admin, expected) in [
            ("user = \"no-such-user\"".into(), String::new(), "there is no user \"no-such-user\""),
            (String::new(), token("none"), "No such file"),
            (String::new(), token("token"), "others may use it"),
            (format!("access_log = {{ path = {:?} }}", path("none/x.log")), String::new(), "No such file"),
            (format!("access_log = {{ path = {:?} }}", folder.path()), String::new(), "is a directory"),
            (String::new(), format!("state_file = {:?}", path("none/state")), "No such file"),
            (String::new(), format!("state_file = {:?}", path("broken.json")), "move it away"),
            (String::new(), format!("socket = {:?}", path("taken.sock")), "is taken: "),
            (String::new(), format!("socket = {:?}", path("token")), "it is no socket"),
            (String::new(), format!("metrics = \"{}\"", taken.local_addr().unwrap()), "is in use, held by "),
            (String::new(), "metrics = \"192.0.2.1:80\"".into(), "Cannot assign requested address"),
        ] {
            let found = found(free(), &global, &admin);
            let is_it = matches!(&*found, [(_, Verdict::Fail, words)] if words.contains(expected));
            assert!(is_it, "{global} {admin}: {found:?}, not {expected}");
        }
        drop(socket);
        assert_eq!(found(free(), "", ""), []);
    }
}
