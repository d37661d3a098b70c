//! The JSON gateway of an etcd with one member, on threads that end with the test program: keys with revisions, watches,
//! leases that end when the test says so, users, and what it does wrong on demand. Shared with the unit tests.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use data_encoding::BASE64;
use serde_json::{Value, json};

/// An etcd.
#[derive(Clone)]
pub(crate) struct FakeEtcd {
    pub(crate) at: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What it knows, and how it behaves.
pub(crate) struct State {
    cluster: u64,
    pub(crate) revision: i64,
    /// What is before this revision is known no more.
    pub(crate) compacted: i64,
    /// Keys with their values, and their lease or 0.
    pub(crate) keys: BTreeMap<Vec<u8>, (Vec<u8>, i64)>,
    /// The revisions of their last changes; a key that has none has not changed.
    changes: BTreeMap<Vec<u8>, i64>,
    pub(crate) leases: BTreeMap<i64, i64>,
    /// Who may ask, with the password; anyone where there is none.
    pub(crate) user: Option<(String, String)>,
    /// The number of the last token. A higher one ends those before.
    pub(crate) token: u64,
    /// It takes connections, and answers nothing on them.
    pub(crate) is_silent: bool,
    /// It refuses to renew a lease that has ended, and does not answer without a TTL.
    pub(crate) is_strict: bool,
    /// These bytes instead of any answer but that to a watch.
    pub(crate) answer: Option<Vec<u8>>,
    /// Bytes of a watch that are sent at a time.
    pub(crate) piece_len: usize,
    /// The paths that were asked for.
    pub(crate) calls: Vec<String>,
    history: Vec<(i64, Value)>,
    watches: Vec<Watching>,
    last_lease: i64,
}

struct Watching {
    stream: TcpStream,
    peer: SocketAddr,
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl FakeEtcd {
    pub(crate) fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    fn start_at(at: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).expect("a free port");
        let state = State {
            cluster: u64::MAX - 1,
            revision: 1,
            compacted: 0,
            keys: BTreeMap::new(),
            changes: BTreeMap::new(),
            leases: BTreeMap::new(),
            user: None,
            token: 1,
            is_silent: false,
            is_strict: false,
            answer: None,
            piece_len: usize::MAX,
            calls: Vec::new(),
            history: Vec::new(),
            watches: Vec::new(),
            last_lease: 7_000_000_000_000_000_000,
        };
        let etcd =
            Self { at: listener.local_addr().expect("it is bound"), state: Arc::new(Mutex::new(state)) };
        let served = etcd.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let etcd = served.clone();
                // The client may go at any time.
                thread::spawn(move || etcd.serve(stream).ok());
            }
        });
        etcd
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, key: &str, value: &str) {
        self.state().put(key.as_bytes(), value.as_bytes(), 0);
    }

    pub(crate) fn delete(&self, key: &str) {
        self.state().delete(key.as_bytes());
    }

    /// How often that was asked for.
    pub(crate) fn calls(&self, path: &str) -> usize {
        self.state().calls.iter().filter(|call| *call == path).count()
    }

    pub(crate) fn watches(&self) -> usize {
        self.state().watches.len()
    }

    /// Sends these bytes to all that watch.
    pub(crate) fn says(&self, bytes: &[u8]) {
        let mut state = self.state();
        let piece_len = state.piece_len;
        for watch in &mut state.watches {
            // It may have gone.
            _ = chunks(&mut watch.stream, bytes, piece_len);
        }
    }

    /// Cuts all watches.
    pub(crate) fn cuts_watches(&self) {
        for watch in self.state().watches.drain(..) {
            _ = watch.stream.shutdown(Shutdown::Both);
        }
    }

    /// All leases end, and their keys go with them.
    pub(crate) fn ends_leases(&self) {
        let mut state = self.state();
        state.leases.clear();
        let gone: Vec<Vec<u8>> =
            state.keys.iter().filter(|(_, (_, lease))| *lease > 0).map(|(key, _)| key.clone()).collect();
        for key in gone {
            state.delete(&key);
        }
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let head = read_until(&mut stream, b"\r\n\r\n")?.to_ascii_lowercase();
        let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches("/v3/").to_owned();
        let header = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        let body = match header("content-length") {
            Some(len) => {
                let mut body = vec![0; len.parse().expect("a length")];
                stream.read_exact(&mut body)?;
                body
            }
            None => chunk(&mut stream)?,
        };
        let request: Value = serde_json::from_slice(&body).expect("requests are JSON");
        let (is_silent, raw) = {
            let mut state = self.state();
            state.calls.push(path.clone());
            (state.is_silent, state.answer.clone().filter(|_| path != "watch"))
        };
        if is_silent {
            return wait(&mut stream);
        }
        if let Some(raw) = raw {
            stream.write_all(&raw)?;
            return stream.shutdown(Shutdown::Write);
        }
        let is_let_in = self.state().lets_in(&path, header("authorization").as_deref());
        if path == "watch" {
            return self.watch(stream, &request["create_request"], is_let_in);
        }
        let answer = if is_let_in {
            self.state().answer(&path, &request)
        } else {
            Err((401, 16, "invalid auth token"))
        };
        let (status, text) = match answer {
            Ok(answer) => (200, answer.to_string()),
            Err((status, code, what)) => {
                let what = format!("etcdserver: {what}");
                (status, json!({"error": what, "message": what, "code": code}).to_string())
            }
        };
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{text}", text.len())
    }

    fn watch(&self, mut stream: TcpStream, request: &Value, is_let_in: bool) -> io::Result<()> {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let (begin, end) = (decoded(&request["key"]), decoded(&request["range_end"]));
        let from = number(&request["start_revision"]);
        // An end takes it away.
        let peer = stream.peer_addr()?;
        {
            let mut state = self.state();
            let header = state.header();
            if !is_let_in {
                let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
                let said = json!({"result": {"header": header, "created": true, "canceled": true, "cancel_reason": reason}});
                return chunks(&mut stream, line(&said).as_bytes(), usize::MAX);
            }
            chunks(
                &mut stream,
                line(&json!({"result": {"header": header, "created": true}})).as_bytes(),
                usize::MAX,
            )?;
            if from < state.compacted {
                let said = json!({"result": {"header": {}, "canceled": true, "compact_revision": state.compacted.to_string()}});
                return chunks(&mut stream, line(&said).as_bytes(), usize::MAX);
            }
            for (_, event) in state.history.iter().filter(|(revision, _)| *revision >= from) {
                let key = decoded(&event["kv"]["key"]);
                if key >= begin && key < end {
                    let said = json!({"result": {"header": header, "events": [event]}});
                    chunks(&mut stream, line(&said).as_bytes(), state.piece_len)?;
                }
            }
            state.watches.push(Watching { stream: stream.try_clone()?, peer, begin, end });
        }
        while let Ok(request) = chunk(&mut stream) {
            let mut state = self.state();
            if request.is_empty() {
                break;
            }
            if !state.is_silent {
                let said = json!({"result": {"header": state.header(), "watch_id": "-1"}});
                let piece_len = state.piece_len;
                if chunks(&mut stream, line(&said).as_bytes(), piece_len).is_err() {
                    break;
                }
            }
            state.calls.push("progress".into());
        }
        self.state().watches.retain(|watch| watch.peer != peer);
        Ok(())
    }
}

impl State {
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        self.revision += 1;
        self.keys.insert(key.to_vec(), (value.to_vec(), lease));
        self.changes.insert(key.to_vec(), self.revision);
        let kv = json!({"key": BASE64.encode(key), "value": BASE64.encode(value)});
        self.tell(key, json!({"kv": kv}));
    }

    /// Its data are gone: another cluster is in its place.
    pub(crate) fn forgets(&mut self) {
        (self.cluster, self.revision) = (self.cluster - 1, 1);
        self.keys.clear();
        self.changes.clear();
        self.leases.clear();
        self.history.clear();
    }

    fn delete(&mut self, key: &[u8]) {
        self.revision += 1;
        self.keys.remove(key);
        self.changes.remove(key);
        self.tell(key, json!({"type": "DELETE", "kv": {"key": BASE64.encode(key)}}));
    }

    fn tell(&mut self, key: &[u8], event: Value) {
        let said = line(&json!({"result": {"header": self.header(), "events": [event.clone()]}}));
        self.history.push((self.revision, event));
        let (is_silent, piece_len) = (self.is_silent, self.piece_len);
        for watch in self.watches.iter_mut().filter(|watch| key >= &*watch.begin && key < &*watch.end) {
            if !is_silent {
                // It may have gone.
                _ = chunks(&mut watch.stream, said.as_bytes(), piece_len);
            }
        }
    }

    fn header(&self) -> Value {
        json!({"cluster_id": self.cluster.to_string(), "member_id": "1", "revision": self.revision.to_string()})
    }

    fn lets_in(&self, path: &str, token: Option<&str>) -> bool {
        let wanted = format!("token.{}", self.token);
        self.user.is_none() || path == "auth/authenticate" || token == Some(&*wanted)
    }

    fn answer(&mut self, path: &str, request: &Value) -> Result<Value, (u16, u16, &'static str)> {
        let lease_id = number(&request["ID"]);
        match path {
            "auth/authenticate" => {
                let given = (request["name"].as_str(), request["password"].as_str());
                let is_it =
                    self.user.as_ref().is_some_and(|(user, password)| given == (Some(user), Some(password)));
                match is_it {
                    true => Ok(json!({"header": self.header(), "token": format!("token.{}", self.token)})),
                    false => Err((400, 3, "authentication failed, invalid user ID or password")),
                }
            }
            "kv/range" => Ok(self.range(request)),
            "kv/put" => self.put_asked(request),
            "kv/deleterange" => {
                self.delete(&decoded(&request["key"]));
                Ok(json!({"header": self.header()}))
            }
            "kv/txn" => self.transaction(request),
            "lease/grant" => {
                self.last_lease += 1;
                let (id, ttl) = (self.last_lease, number(&request["TTL"]));
                self.leases.insert(id, ttl);
                Ok(json!({"header": self.header(), "ID": id.to_string(), "TTL": ttl.to_string()}))
            }
            "lease/keepalive" if self.is_strict && !self.leases.contains_key(&lease_id) => {
                Err((404, 5, "requested lease not found"))
            }
            "lease/keepalive" => {
                let mut result = json!({"header": self.header(), "ID": lease_id.to_string()});
                if let Some(ttl) = self.leases.get(&lease_id) {
                    result["TTL"] = ttl.to_string().into();
                }
                Ok(json!({"result": result}))
            }
            "lease/revoke" => {
                if self.leases.remove(&lease_id).is_none() {
                    return Err((404, 5, "requested lease not found"));
                }
                let gone: Vec<Vec<u8>> = self
                    .keys
                    .iter()
                    .filter(|(_, (_, of))| *of == lease_id)
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in gone {
                    self.delete(&key);
                }
                Ok(json!({"header": self.header()}))
            }
            other => panic!("{other} is not known"),
        }
    }

    fn put_asked(&mut self, request: &Value) -> Result<Value, (u16, u16, &'static str)> {
        let lease = number(&request["lease"]);
        if lease != 0 && !self.leases.contains_key(&lease) {
            return Err((404, 5, "requested lease not found"));
        }
        self.put(&decoded(&request["key"]), &decoded(&request["value"]), lease);
        Ok(json!({"header": self.header()}))
    }

    /// Comparisons, and the requests for either result.
    fn transaction(&mut self, request: &Value) -> Result<Value, (u16, u16, &'static str)> {
        let succeeded = request["compare"].as_array().into_iter().flatten().all(|compare| {
            let key = decoded(&compare["key"]);
            match compare["target"].as_str() {
                Some("CREATE") => !self.keys.contains_key(&key),
                Some("MOD") => self.changes.get(&key) == Some(&number(&compare["mod_revision"])),
                Some("LEASE") => {
                    self.keys.get(&key).is_some_and(|(_, lease)| *lease == number(&compare["lease"]))
                }
                other => panic!("{other:?} is not compared here"),
            }
        });
        let mut responses = Vec::new();
        let requests = &request[if succeeded { "success" } else { "failure" }];
        for then in requests.as_array().into_iter().flatten() {
            if let Some(put) = then.get("request_put") {
                responses.push(json!({"response_put": self.put_asked(put)?}));
            }
            if let Some(range) = then.get("request_range") {
                responses.push(json!({"response_range": self.range(range)}));
            }
            if let Some(delete) = then.get("request_delete_range") {
                self.delete(&decoded(&delete["key"]));
                responses.push(json!({"response_delete_range": {}}));
            }
        }
        let mut answer = json!({"header": self.header(), "responses": responses});
        if succeeded {
            answer["succeeded"] = true.into();
        }
        Ok(answer)
    }

    fn range(&self, request: &Value) -> Value {
        let (begin, mut end) = (decoded(&request["key"]), decoded(&request["range_end"]));
        if end.is_empty() {
            end = [&begin[..], b"\0"].concat();
        }
        let limit = usize::try_from(number(&request["limit"])).unwrap_or_default();
        let all: Vec<Value> = self
            .keys
            .range(begin..end)
            .map(|(key, (value, lease))| {
                let revision = self.changes.get(key).copied().unwrap_or_default();
                json!({"key": BASE64.encode(key), "value": BASE64.encode(value), "lease": lease.to_string(),
                    "mod_revision": revision.to_string()})
            })
            .collect();
        let page = &all[..all.len().min(if limit == 0 { usize::MAX } else { limit })];
        json!({"header": self.header(), "kvs": page, "more": page.len() < all.len(), "count": all.len().to_string()})
    }
}

fn decoded(value: &Value) -> Vec<u8> {
    BASE64.decode(value.as_str().unwrap_or_default().as_bytes()).expect("base64")
}

fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

fn line(message: &Value) -> String {
    format!("{message}\n")
}

fn read_until(stream: &mut TcpStream, end: &[u8]) -> io::Result<String> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(end) {
        stream.read_exact(&mut byte)?;
        bytes.extend(byte);
    }
    Ok(String::from_utf8(bytes).expect("a head is text"))
}

/// The next piece of a body in pieces; none at its end.
fn chunk(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let size = read_until(stream, b"\r\n")?;
    let len = usize::from_str_radix(size.trim(), 16).expect("a length");
    let mut bytes = vec![0; len + 2];
    stream.read_exact(&mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Sends `bytes` in pieces of that length.
fn chunks(stream: &mut TcpStream, bytes: &[u8], len: usize) -> io::Result<()> {
    for piece in bytes.chunks(len) {
        write!(stream, "{:x}\r\n", piece.len())?;
        stream.write_all(piece)?;
        stream.write_all(b"\r\n")?;
    }
    Ok(())
}

/// Until the other side gives up.
fn wait(stream: &mut TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])
}
