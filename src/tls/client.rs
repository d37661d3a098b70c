//! The client's side of TLS, built once per check.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use super::certificate::validity;

/// What a check demands of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// An authority has signed it, it is valid now, and it is for the name that the check asks for.
    Full,
    /// The same for any name.
    Chain,
    /// Nothing. The server must still have its key.
    None,
}

impl Verify {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Chain, Self::None];

    /// Returns the word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Chain => "chain",
            Self::None => "none",
        }
    }
}

/// The authorities that checks trust. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<Trusted>);

#[derive(Debug)]
struct Trusted {
    anchors: RootCertStore,
    /// Of a file: its certificates, of which a server may show one itself, such as one that is signed by itself.
    listed: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// None: no certificate passes.
    pub fn nobody() -> Self {
        Self::with(RootCertStore::empty(), Vec::new())
    }

    fn with(anchors: RootCertStore, listed: Vec<CertificateDer<'static>>) -> Self {
        Self(Arc::new(Trusted { anchors, listed }))
    }

    /// Returns the authorities of certificates, without those that are none; fails when none is left.
    pub fn of(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        let (_, ignored) = store.add_parsable_certificates(certificates);
        match (store.is_empty(), ignored) {
            (false, _) => Ok(Self::with(store, Vec::new())),
            (true, 0) => Err("there is no certificate in it".to_owned()),
            (true, ignored) => Err(format!("none of its {ignored} certificates can be read")),
        }
    }

    /// Returns the authorities of a file in PEM. Fails with the first certificate that is none, which a bundle that an
    /// operator names must not have.
    pub fn of_pem(text: &[u8]) -> Result<Self, String> {
        let (mut store, mut listed) = (RootCertStore::empty(), Vec::new());
        for (certificate, number) in CertificateDer::pem_slice_iter(text).zip(1..) {
            let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
            store
                .add(certificate.clone())
                .map_err(|error| format!("certificate {number} cannot be read: {error}"))?;
            listed.push(certificate);
        }
        match store.is_empty() {
            true => Err("there is no certificate in PEM in it".to_owned()),
            false => Ok(Self::with(store, listed)),
        }
    }

    /// Returns their number.
    pub fn count(&self) -> usize {
        self.0.anchors.len()
    }

    /// Returns a number that stands for all of them.
    pub fn digest(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for anchor in &self.0.anchors.roots {
            hasher.update(&anchor.subject);
            hasher.update(&anchor.subject_public_key_info);
        }
        hasher.finalize()
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.anchors.roots == other.0.anchors.roots && self.0.listed == other.0.listed)
    }
}

impl Eq for Authorities {}

/// What the handshakes of a check have in common. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    authorities: Authorities,
    verify: Verify,
}

impl Client {
    /// Returns a client that verifies so, and offers the protocols `alpn`.
    pub fn new(authorities: Authorities, verify: Verify, alpn: &[String]) -> Self {
        let provider = ring::default_provider();
        let verifier = Verifier {
            trusted: Arc::clone(&authorities.0),
            verify,
            algorithms: provider.signature_verification_algorithms,
        };
        let mut config = builder(provider)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
        // A resumed session shows no certificate: the check would no longer see that one has expired.
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config), authorities, verify }
    }

    /// Returns what all its handshakes have in common.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// Returns a connection to the server of that name, with its first message to send. Fails without randomness.
    pub fn connect(&self, name: ServerName<'static>) -> Result<ClientConnection, Error> {
        ClientConnection::new(Arc::clone(&self.config), name)
    }

    /// Returns what it trusts.
    pub fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// Returns what it demands of a certificate.
    pub fn verify(&self) -> Verify {
        self.verify
    }

    /// Returns the protocols that it offers.
    pub fn alpn(&self) -> impl Iterator<Item = String> {
        self.config.alpn_protocols.iter().map(|name| String::from_utf8_lossy(name).into_owned())
    }
}

fn builder(provider: CryptoProvider) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both versions")
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.verify == other.verify
            && self.config.alpn_protocols == other.config.alpn_protocols
            && self.authorities == other.authorities
    }
}

impl Eq for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.authorities.count();
        write!(f, "Client {{ verify: {:?}, authorities: {count} }}", self.verify)
    }
}

#[derive(Debug)]
struct Verifier {
    trusted: Arc<Trusted>,
    verify: Verify,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verify == Verify::None {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if self.trusted.listed.iter().any(|listed| listed == end_entity) {
            verify_time(end_entity, now)?;
        } else {
            let (anchors, algorithms) = (&self.trusted.anchors, self.algorithms.all);
            verify_server_cert_signed_by_trust_anchor(&certificate, anchors, intermediates, now, algorithms)?;
        }
        if self.verify == Verify::Full {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Fails unless a certificate that needs no signature is valid `now`.
fn verify_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (not_before, not_after) = validity(certificate).ok_or(CertificateError::BadEncoding)?;
    let [not_before, not_after] = [not_before, not_after].map(UnixTime::since_unix_epoch);
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_server::authority;

    #[test]
    fn a_file_of_authorities_must_have_some_and_all_of_them_must_be_good() {
        let good = authority("root.example").pem();
        assert_eq!(Authorities::of_pem(good.as_bytes()).unwrap().count(), 1);
        let two = format!("# ours\n{good}{}", authority("other.example").pem());
        assert_eq!(Authorities::of_pem(two.as_bytes()).unwrap().count(), 2);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, expected) in [
            (String::new(), "there is no certificate in PEM in it"),
            ("127.0.0.1 localhost\n".to_owned(), "there is no certificate in PEM in it"),
            (format!("{good}{broken}"), "certificate 2 cannot be read"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), "not PEM"),
        ] {
            let error = Authorities::of_pem(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn clients_differ_by_what_they_trust() {
        let pem = authority("root.example").pem();
        let [one, same] = [&pem; 2].map(|pem| Authorities::of_pem(pem.as_bytes()).unwrap());
        let client = |authorities: &Authorities| Client::new(authorities.clone(), Verify::Full, &[]);
        assert_eq!(client(&one), client(&same));
        assert_eq!(one.digest(), same.digest());
        assert_ne!(client(&one), client(&Authorities::nobody()));
        assert_ne!(client(&one), Client::new(one.clone(), Verify::None, &[]));
        assert_ne!(client(&one), Client::new(one.clone(), Verify::Full, &["h2".to_owned()]));
    }
}
