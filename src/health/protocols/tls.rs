//! TLS around another exchange, which does not know of it: a full handshake, then what the inner one says, encrypted.
//!
//! A handshake of random bytes has the same result wherever the network cuts the answer, but what is sent differs each
//! time.

use std::io::{ErrorKind, Read, Write};

use rustls::pki_types::{IpAddr, ServerName};
use rustls::{ClientConnection, Error};

use crate::base::address::Address;
use crate::config::model::{Check, CheckTls};
use crate::health::cause::{Cause, Place, Quoted};
use crate::health::exchange::{Exchange, Progress};
use crate::health::expected::Expected;
use crate::tls::{Certificate, Client, reason};

/// Bytes of a handshake from the backend: several times the longest chain of certificates.
const HANDSHAKE_MAX: usize = 64 * 1024;
/// Bytes from the backend in all: the inner exchange judges fewer, and the rest may be records without content.
const RECEIVED_MAX: usize = HANDSHAKE_MAX + 32 * 1024;
/// Bytes of the start of an answer that are kept to be shown.
const HEAD_LEN: usize = 65;
/// Bytes decrypted at a time.
const PLAIN_LEN: usize = 2048;
/// Types of records that a server may begin with (RFC 8446, 5.1): an alert or a handshake.
const FIRST_RECORDS: [u8; 2] = [21, 22];

#[derive(Debug)]
pub(super) struct Tls {
    client: Client,
    name: ServerName<'static>,
    inner: Box<dyn Exchange>,
    /// Present from the start on.
    connection: Option<Box<ClientConnection>>,
    /// Whether the handshake is over, and the inner exchange has begun.
    is_open: bool,
    received: usize,
    head: Vec<u8>,
    certificate: Option<Certificate>,
}

impl Tls {
    /// Returns the exchange `inner` of the check `inside`, over TLS to `target`.
    pub(super) fn new(tls: &CheckTls, inside: &Check, target: &Address, inner: Box<dyn Exchange>) -> Self {
        let name = tls.server_name.clone().or_else(|| name_in_host(inside));
        Self {
            client: tls.client.clone(),
            name: name.unwrap_or_else(|| name_of(target)),
            inner,
            connection: None,
            is_open: false,
            received: 0,
            head: Vec::new(),
            certificate: None,
        }
    }

    /// Reads what may be read, and gives the inner exchange its part.
    fn receive(&mut self, bytes: &[u8]) -> Progress {
        if self.head.len() < HEAD_LEN {
            self.head.extend_from_slice(&bytes[..bytes.len().min(HEAD_LEN - self.head.len())]);
            if self.head.first().is_some_and(|kind| !FIRST_RECORDS.contains(kind)) {
                return Progress::Failed(Cause::NotProtocol { protocol: "TLS", got: self.got() });
            }
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let max = if self.is_open { RECEIVED_MAX } else { HANDSHAKE_MAX };
            let (mut now, later) = rest.split_at(rest.len().min(max - self.received));
            if now.is_empty() {
                return Progress::Failed(Cause::TooLong { max, got: self.got() }.at(self.place()));
            }
            self.received += now.len();
            rest = later;
            while !now.is_empty() {
                let decided = self.read_records(&mut now);
                if decided != Progress::More {
                    return decided;
                }
            }
        }
        Progress::More
    }

    /// Reads a part of `bytes`, at least one of them.
    fn read_records(&mut self, bytes: &mut &[u8]) -> Progress {
        let Some(connection) = &mut self.connection else { return Progress::Failed(self.on_eof()) };
        // It fails only when there are plaintexts to read, and none are left.
        let read = connection.read_tls(bytes).map_err(|error| Error::General(error.to_string()));
        if let Err(error) = read.and_then(|_| connection.process_new_packets()) {
            return Progress::Failed(Cause::Tls(reason(&error)));
        }
        if !self.is_open && !connection.is_handshaking() {
            self.is_open = true;
            let chain = connection.peer_certificates().unwrap_or_default();
            self.certificate = chain.first().and_then(Certificate::of);
            let mut plain = Vec::new();
            let progress = self.inner.start(&mut plain);
            if let Some(decided) = self.send(&plain, progress) {
                return decided;
            }
        }
        self.read_plaintexts()
    }

    /// Gives the inner exchange all that is decrypted.
    fn read_plaintexts(&mut self) -> Progress {
        let mut buffer = [0; PLAIN_LEN];
        loop {
            let Some(connection) = &mut self.connection else { return Progress::More };
            match connection.reader().read(&mut buffer) {
                Ok(0) => return Progress::Failed(self.inner.on_eof()),
                Ok(len) => {
                    let mut plain = Vec::new();
                    let progress = self.inner.on_bytes(&buffer[..len], &mut plain);
                    if let Some(decided) = self.send(&plain, progress) {
                        return decided;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::More,
                Err(error) => return Progress::Failed(Cause::Tls(error.to_string())),
            }
        }
    }

    /// Encrypts what the inner exchange sends. Returns its result, if it has one.
    fn send(&mut self, plain: &[u8], progress: Progress) -> Option<Progress> {
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.writer().write_all(plain)
        {
            return Some(Progress::Failed(Cause::Tls(error.to_string())));
        }
        (progress != Progress::More).then_some(progress)
    }

    /// Appends the records that are due to `out`.
    fn flush(&mut self, out: &mut Vec<u8>) {
        let Some(connection) = &mut self.connection else { return };
        while connection.wants_write() {
            connection.write_tls(out).expect("a vector takes all bytes");
        }
    }

    fn got(&self) -> Quoted {
        self.head.as_slice().into()
    }
}

impl Exchange for Tls {
    fn start(&mut self, out: &mut Vec<u8>) -> Progress {
        match self.client.connect(self.name.clone()) {
            Ok(connection) => self.connection = Some(Box::new(connection)),
            Err(error) => return Progress::Failed(Cause::Tls(reason(&error))),
        }
        self.flush(out);
        Progress::More
    }

    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Progress {
        let progress = self.receive(bytes);
        if progress != Progress::More
            && self.is_open
            && let Some(connection) = &mut self.connection
        {
            connection.send_close_notify();
        }
        // Of a handshake that has failed this is the alert, which says to the backend why.
        self.flush(out);
        progress
    }

    fn on_eof(&self) -> Cause {
        if self.is_open { self.inner.on_eof() } else { Cause::Closed { got: self.got() }.at(self.place()) }
    }

    fn place(&self) -> Option<Place> {
        if self.is_open { self.inner.place() } else { Some(Place::Message("TLS handshake")) }
    }

    fn expected(&self) -> Option<Expected> {
        self.is_open.then(|| self.inner.expected()).flatten()
    }

    fn is_expensive(&self) -> bool {
        !self.is_open
    }

    fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }
}

/// Returns the name in the Host of a check, if it names one.
fn name_in_host(check: &Check) -> Option<ServerName<'static>> {
    let (Check::Http { host, .. } | Check::Grpc { host, .. }) = check else { return None };
    let host = host.as_deref()?;
    let name = |text: &str| ServerName::try_from(text.trim_matches(['[', ']']).to_owned()).ok();
    name(host).or_else(|| name(host.rsplit_once(':')?.0))
}

/// Returns the name of a backend that has only an address: the certificate must have that.
fn name_of(target: &Address) -> ServerName<'static> {
    let Address::Ip(target) = target;
    ServerName::IpAddress(IpAddr::from(target.ip().to_canonical()))
}

#[cfg(test)]
mod tests;
