//! The source against a gateway that lies, stalls and forgets.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::cluster::Cluster;
use crate::config::discover::WhenAbsent;
use crate::config::server_tls::ServerTls;
use crate::etcd::list::PAGE_LEN;
use crate::tls::test_server::{Authority, Issued, authority};
use crate::tls::{self, Authorities, ServerName, Verify};

#[path = "../../../../tests/e2e/harness/fake_etcd.rs"]
mod fake_etcd;

use fake_etcd::FakeEtcd;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(30);

fn source(members: &[&FakeEtcd], login: Option<(String, PathBuf)>) -> AskEtcd {
    let settings = Etcd {
        prefix: "/l4lb/web/".into(),
        cluster: Cluster { endpoints: members.iter().map(|etcd| etcd.at).collect(), tls: None, login },
        when_absent: WhenAbsent::Remove,
    };
    AskEtcd::new(settings, Rng::new(1))
}

fn at(last: u8) -> String {
    format!("{{\"address\": \"10.0.0.{last}:80\"}}")
}

fn one(etcd: &FakeEtcd) -> AskEtcd {
    source(&[etcd], None)
}

/// The names of the backends that the source answers, or why it does not.
async fn asked(source: &mut AskEtcd) -> Result<Vec<String>, String> {
    match timeout(LONG, source.ask()).await.expect("an answer") {
        Answer::Records(records) => Ok(records.listed.into_iter().map(|(_, found)| found.name).collect()),
        Answer::Nothing { why, .. } | Answer::Failure(why) => Err(why),
    }
}

/// Returns once the source has seen a change.
async fn changed(source: &mut AskEtcd) {
    timeout(LONG, source.changed()).await.expect("a change");
}

fn names(list: &[&str]) -> Result<Vec<String>, String> {
    Ok(list.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn keys_are_listed_once_and_then_watched_wherever_the_stream_is_cut() {
    for piece_len in [usize::MAX, 7, 1] {
        let etcd = FakeEtcd::start();
        etcd.state().piece_len = piece_len;
        etcd.put("/l4lb/web/a", &at(1));
        etcd.put("/l4lb/web2/x", &at(9));
        let mut source = one(&etcd);
        assert_eq!(asked(&mut source).await, names(&["a"]));
        etcd.put("/l4lb/web/b", &at(2));
        changed(&mut source).await;
        assert_eq!(asked(&mut source).await, names(&["a", "b"]));
        etcd.delete("/l4lb/web/a");
        changed(&mut source).await;
        assert_eq!(asked(&mut source).await, names(&["b"]));
        // Nothing has changed: it asks whether the watch is alive.
        assert_eq!(asked(&mut source).await, names(&["b"]));
        assert_eq!((etcd.calls("kv/range"), etcd.calls("watch"), etcd.calls("progress")), (1, 1, 1));
    }
}

/// A watch that was resumed did not see what was deleted at a revision that was compacted meanwhile.
#[tokio::test]
async fn behind_a_watch_that_breaks_off_all_keys_are_listed_anew() {
    let etcd = FakeEtcd::start();
    etcd.put("/l4lb/web/a", &at(1));
    let mut source = one(&etcd);
    asked(&mut source).await.unwrap();
    etcd.cuts_watches();
    etcd.put("/l4lb/web/b", &at(2));
    etcd.delete("/l4lb/web/a");
    changed(&mut source).await;
    assert_eq!(asked(&mut source).await, names(&["b"]));
    assert_eq!((etcd.calls("kv/range"), etcd.calls("watch")), (2, 2));
}

/// Between the list and the watch.
#[tokio::test]
async fn behind_a_compaction_all_keys_are_listed_anew() {
    let etcd = FakeEtcd::start();
    etcd.put("/l4lb/web/a", &at(1));
    etcd.state().compacted = 99;
    let mut source = one(&etcd);
    assert_eq!(asked(&mut source).await, names(&["a"]));
    changed(&mut source).await;
    assert!(source.watch.is_none());
    etcd.state().compacted = 0;
    assert_eq!(asked(&mut source).await, names(&["a"]));
    assert_eq!((etcd.calls("kv/range"), etcd.calls("watch")), (2, 2));
}

/// A partition that drops packets: nothing arrives, and nothing ends.
#[tokio::test]
async fn a_silent_member_is_given_up_for_the_next_one_and_no_backend_is_lost() {
    let (first, second) = (FakeEtcd::start(), FakeEtcd::start());
    for etcd in [&first, &second] {
        etcd.put("/l4lb/web/a", &at(1));
    }
    let mut source = source(&[&first, &second], None);
    assert_eq!(asked(&mut source).await, names(&["a"]));
    let (silent, other) = if first.watches() == 1 { (first, second) } else { (second, first) };
    silent.state().is_silent = true;
    other.put("/l4lb/web/b", &at(2));
    assert_eq!(asked(&mut source).await, names(&["a", "b"]));
    assert_eq!((other.watches(), other.calls("kv/range")), (1, 1));
}

#[tokio::test]
async fn a_backend_goes_with_its_lease() {
    let etcd = FakeEtcd::start();
    etcd.put("/l4lb/web/a", &at(1));
    etcd.state().put(b"/l4lb/web/b", at(2).as_bytes(), 7);
    let mut source = one(&etcd);
    assert_eq!(asked(&mut source).await, names(&["a", "b"]));
    etcd.ends_leases();
    changed(&mut source).await;
    assert_eq!(asked(&mut source).await, names(&["a"]));
}

#[tokio::test]
async fn the_greatest_revision_overflows_nothing() {
    let etcd = FakeEtcd::start();
    let body = format!("{{\"header\": {{\"cluster_id\": \"1\", \"revision\": \"{}\"}}}}", i64::MAX);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    etcd.state().answer = Some(answer.into());
    let mut source = one(&etcd);
    assert_eq!(asked(&mut source).await, names(&[]));
}

#[tokio::test]
async fn what_is_no_answer_is_a_failure_that_names_the_member_and_keeps_the_view() {
    let etcd = FakeEtcd::start();
    etcd.put("/l4lb/web/a", &at(1));
    let mut source = one(&etcd);
    asked(&mut source).await.unwrap();
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let huge = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20)).repeat(17);
    for (raw, expected) in [
        ("SSH-2.0-garbage\r\n".to_owned(), "invalid HTTP"),
        (String::new(), "connection closed"),
        ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".into(), "answers 503"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".into(), "breaks off"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".into(), "longer than 16 MiB"),
        (format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{huge}"), "longer than 16 MiB"),
        (answer("<html>\n"), "no answer: expected value"),
        (answer("{\"kvs\": [{\"key\": \"*\"}]}"), "not base64"),
        (answer("{\"header\": {\"cluster_id\": \"1\", \"revision\": \"1\"}}"), "it has lost data"),
    ] {
        etcd.cuts_watches();
        etcd.state().answer = Some(raw.into());
        let error = asked(&mut source).await.unwrap_err();
        assert!(error.contains(expected) && error.contains(&etcd.at.to_string()), "{expected}: {error}");
        assert_eq!(source.view.records().listed.len(), 1, "{expected}");
    }
    etcd.state().answer = None;
    assert_eq!(asked(&mut source).await, names(&["a"]));
}

#[tokio::test]
async fn a_watch_that_says_what_it_should_not_is_begun_again() {
    let etcd = FakeEtcd::start();
    etcd.put("/l4lb/web/a", &at(1));
    let mut source = one(&etcd);
    for said in [
        "<html>\n",
        "{\"result\": {\"events\": [{\"kv\": {\"key\": \"*\"}}]}}\n",
        "{\"result\": {\"canceled\": true, \"cancel_reason\": \"etcdserver: no leader\"}}\n",
        "{\"error\": {\"grpc_code\": 14, \"message\": \"etcdserver: no leader\"}}\n",
    ] {
        assert_eq!(asked(&mut source).await, names(&["a"]), "{said}");
        etcd.says(said.as_bytes());
        changed(&mut source).await;
        assert!(source.watch.is_none(), "{said}");
    }
    assert_eq!(asked(&mut source).await, names(&["a"]));
}

/// A folder of data made anew, from which those that renew a lease come back one by one.
#[tokio::test]
async fn a_cluster_that_knows_less_than_before_is_believed_later() {
    let etcd = FakeEtcd::start();
    etcd.put("/l4lb/web/a", &at(1));
    let mut source = one(&etcd);
    asked(&mut source).await.unwrap();
    etcd.state().forgets();
    etcd.cuts_watches();
    let error = asked(&mut source).await.unwrap_err();
    assert!(error.contains("it has lost data, or is another cluster (revision 1 after 2)"), "{error}");
    assert!(asked(&mut source).await.is_err());
    source.doubted = source.doubted.and_then(|since| since.checked_sub(DOUBT));
    assert_eq!(asked(&mut source).await, names(&[]));
    etcd.put("/l4lb/web/b", &at(2));
    changed(&mut source).await;
    assert_eq!(asked(&mut source).await, names(&["b"]));
}

#[tokio::test]
async fn a_user_signs_in_and_again_when_its_token_has_ended() {
    let etcd = FakeEtcd::start();
    etcd.put("/l4lb/web/a", &at(1));
    etcd.state().user = Some(("lb".into(), "secret".into()));
    let error = asked(&mut one(&etcd)).await.unwrap_err();
    assert!(error.contains("invalid auth token"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let login = Some(("lb".to_owned(), file.path().to_owned()));
    let mut source = source(&[&etcd], login);
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let error = asked(&mut source).await.unwrap_err();
    assert!(error.contains("password_file: ") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(file.path(), "wrong\n").unwrap();
    let error = asked(&mut source).await.unwrap_err();
    assert!(error.contains("authentication failed") && !error.contains("wrong"), "{error}");
    fs::write(file.path(), "secret\nanything").unwrap();
    assert_eq!(asked(&mut source).await, names(&["a"]));
    let signed_in = etcd.calls("auth/authenticate");
    for ended in 1..3 {
        etcd.state().token += 1;
        etcd.cuts_watches();
        assert_eq!(asked(&mut source).await, names(&["a"]));
        assert_eq!(etcd.calls("auth/authenticate"), signed_in + ended);
    }
}

#[tokio::test]
async fn many_keys_come_in_pages_and_too_many_are_refused() {
    let etcd = FakeEtcd::start();
    let key = |n: usize| format!("/l4lb/web/b{n}").into_bytes();
    let value = |n: usize| format!("{{\"address\": \"10.{}.{}.1:80\"}}", n >> 8, n & 255).into_bytes();
    etcd.state().keys.extend((0..2 * PAGE_LEN + 1).map(|n| (key(n), (value(n), 0))));
    let mut source = one(&etcd);
    assert_eq!(asked(&mut source).await.unwrap().len(), 2 * PAGE_LEN + 1);
    assert_eq!(etcd.calls("kv/range"), 3);
}

/// Speaks TLS in front of `etcd`, with a certificate for that name.
async fn over_tls(etcd: &FakeEtcd, authority: &Authority, name: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, behind) = (listener.local_addr().unwrap(), etcd.at);
    let acceptor = TlsAcceptor::from(authority.config(&Issued::now(&[name])));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust it has gone.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut behind = TcpStream::connect(behind).await.unwrap();
                let _end = copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    at
}

fn source_over_tls(member: SocketAddr, trusted: &Authority, name: Option<&'static str>) -> AskEtcd {
    let authorities = Authorities::of_pem(trusted.pem().as_bytes()).unwrap();
    let client = tls::Client::new(authorities, Verify::Full, &[]);
    let server_name = name.map(|name| ServerName::try_from(name).unwrap());
    let tls = Some(ServerTls { server_name, ca_file: None, client });
    let settings = Etcd {
        prefix: "/l4lb/web/".into(),
        cluster: Cluster { endpoints: vec![member], tls, login: None },
        when_absent: WhenAbsent::Remove,
    };
    AskEtcd::new(settings, Rng::new(1))
}

#[tokio::test]
async fn a_member_over_tls_is_listed_and_watched_if_its_certificate_is_good() {
    let (etcd, [ours, theirs]) = (FakeEtcd::start(), ["ours.example", "theirs.example"].map(authority));
    etcd.put("/l4lb/web/a", &at(1));
    let by_address = over_tls(&etcd, &ours, "127.0.0.1").await;
    let by_name = over_tls(&etcd, &ours, "etcd.example").await;
    for mut source in
        [source_over_tls(by_address, &ours, None), source_over_tls(by_name, &ours, Some("etcd.example"))]
    {
        assert_eq!(asked(&mut source).await, names(&["a"]));
        etcd.put("/l4lb/web/b", &at(2));
        changed(&mut source).await;
        assert_eq!(asked(&mut source).await, names(&["a", "b"]));
        assert_eq!(asked(&mut source).await, names(&["a", "b"]), "the watch is alive");
        etcd.delete("/l4lb/web/b");
    }
    for (mut source, expected) in [
        (source_over_tls(by_address, &theirs, None), "certificate is signed by an unknown issuer"),
        (source_over_tls(by_name, &ours, None), "certificate is for etcd.example, not 127.0.0.1"),
    ] {
        let error = asked(&mut source).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(etcd.calls("kv/range"), 2);
}
