//! Asks a cluster: one member, and the next one where that does not answer. Signs in where that is needed.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::base::rng::Rng;
use crate::config::cluster::Cluster;
use crate::config::one_line;
use crate::config::server_tls::ServerTls;
use crate::etcd::messages::{Token, encode, end_of};
use crate::etcd::request::{ANSWER_TIMEOUT, EtcdError, ask};
use crate::etcd::watch::Watch;
use crate::sys::{Call, open_private};

/// Most bytes read from a file with a password, which is in its first line.
const PASSWORD_FILE_LEN_MAX: u16 = 16 << 10;

/// One that asks a cluster.
#[derive(Debug)]
pub struct Client {
    members: Vec<SocketAddr>,
    tls: Option<ServerTls>,
    /// Which of them is asked first.
    current: usize,
    /// The user that asks. The password is read for each sign-in.
    login: Option<(String, PathBuf)>,
    token: Option<Zeroizing<String>>,
    reading: Call<Password>,
}

type Password = io::Result<Zeroizing<String>>;

impl Client {
    /// Asks the members of `cluster`, of which there must be one. Which of them is the first is left to `rng`: not all
    /// that ask a cluster ask the same one.
    pub fn new(cluster: Cluster, rng: &mut Rng) -> Self {
        let Cluster { endpoints: members, tls, login } = cluster;
        let current = usize::try_from(rng.below(members.len() as u64)).unwrap_or_default();
        let reading = Call::new("l4lb-password", ANSWER_TIMEOUT);
        Self { members, tls, current, login, token: None, reading }
    }

    /// Returns the member that is asked first.
    pub fn member(&self) -> SocketAddr {
        self.members[self.current]
    }

    /// Asks another member first from now on, if there is one.
    pub fn next_member(&mut self) {
        self.current = (self.current + 1) % self.members.len();
    }

    /// Returns the answer to `request` at `/v3/{path}`: of the first member that has one. Each is asked once.
    pub async fn call<T: DeserializeOwned>(&mut self, path: &str, request: &Value) -> Result<T, EtcdError> {
        let mut away = Vec::new();
        for _ in 0..self.members.len() {
            let answer = match self.call_member(path, request).await {
                Err(error) if error.is_of_token() && self.login.is_some() => {
                    self.token = None;
                    self.call_member(path, request).await
                }
                answer => answer,
            };
            match answer {
                Ok(bytes) => {
                    let member = self.member();
                    return serde_json::from_slice(&bytes).map_err(|error| {
                        EtcdError::Away(one_line(&format!("{member}: no answer: {error}")))
                    });
                }
                Err(EtcdError::Away(why)) => {
                    away.push(why);
                    self.next_member();
                }
                Err(error) => return Err(error),
            }
        }
        Err(EtcdError::Away(away.join("; ")))
    }

    /// Returns a watch of all keys with `prefix` from that revision on, at the member that is asked first.
    pub async fn watch(&mut self, prefix: &[u8], revision: i64) -> Result<Watch, EtcdError> {
        match self.begin_watch(prefix, revision).await {
            Err(error) if error.is_of_token() && self.login.is_some() => {
                self.token = None;
                self.begin_watch(prefix, revision).await
            }
            watch => watch,
        }
    }

    async fn begin_watch(&mut self, prefix: &[u8], revision: i64) -> Result<Watch, EtcdError> {
        let request = json!({"create_request": {
            "key": encode(prefix),
            "range_end": encode(&end_of(prefix)),
            "start_revision": revision.to_string(),
            "fragment": true,
        }});
        let (member, token) = (self.member(), self.token().await?);
        let late = |_| EtcdError::Away(format!("{member}: no watch within {} s", ANSWER_TIMEOUT.as_secs()));
        timeout(ANSWER_TIMEOUT, Watch::begin(member, self.tls.as_ref(), token, &request))
            .await
            .map_err(late)?
    }

    /// Returns the bytes of the answer of the member that is asked first.
    async fn call_member(&mut self, path: &str, request: &Value) -> Result<Vec<u8>, EtcdError> {
        let (member, token) = (self.member(), self.token().await?);
        ask(member, self.tls.as_ref(), path, token, request).await
    }

    /// Returns the header that presents the token, after signing in where that is needed.
    async fn token(&mut self) -> Result<Option<HeaderValue>, EtcdError> {
        let Some((user, password_file)) = &self.login else { return Ok(None) };
        let member = self.members[self.current];
        if self.token.is_none() {
            let shown = password_file.display();
            let no_password =
                |why: String| EtcdError::Password(one_line(&format!("password_file: {shown}: {why}")));
            let password = match self.reading.late() {
                Some(late) => late,
                None => {
                    let path = password_file.clone();
                    self.reading.run(move || password(&path)).await
                }
            };
            let password = password.map_err(no_password)?.map_err(|error| no_password(error.to_string()))?;
            let request = json!({"name": user, "password": *password});
            let bytes = ask(member, self.tls.as_ref(), "auth/authenticate", None, &request).await?;
            let Token { token } = serde_json::from_slice(&bytes)
                .map_err(|_| EtcdError::Away(format!("{member}: no token in the answer")))?;
            self.token = Some(Zeroizing::new(token));
        }
        let token = self.token.as_ref().map_or("", |token| token.as_str());
        let mut value = HeaderValue::from_str(token)
            .map_err(|_| EtcdError::Away(format!("{member}: the token is no text for a header")))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Returns the first line of a file that no other user may read.
fn password(path: &Path) -> Password {
    // Allocated at its final size: growing would leave copies of the password behind.
    let mut text = Zeroizing::new(String::with_capacity(PASSWORD_FILE_LEN_MAX.into()));
    open_private(path)?.take(PASSWORD_FILE_LEN_MAX.into()).read_to_string(&mut text)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "needs the password in its first line"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}
