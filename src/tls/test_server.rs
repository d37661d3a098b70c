//! Certificates and servers of tests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

/// An authority that signs certificates.
pub(crate) struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) names: Vec<String>,
    /// In seconds since 1970.
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Issued {
    /// For these names, from yesterday to tomorrow.
    pub(crate) fn now(names: &[&str]) -> Self {
        let now = seconds_now();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Self { names, not_before: now - 86_400, not_after: now + 86_400 }
    }
}

pub(crate) fn seconds_now() -> u64 {
    UnixTime::now().as_secs()
}

fn params(names: Vec<String>, common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

pub(crate) fn authority(name: &str) -> Authority {
    let mut params = params(vec![name.to_owned()], name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Authority { certificate, issuer: Issuer::new(params, key) }
}

impl Authority {
    /// Returns a server that shows the certificate of the authority itself.
    pub(crate) fn itself(&self) -> ServerConnection {
        let key = PrivateKeyDer::try_from(self.issuer.key().serialize_der()).unwrap();
        server(self.certificate.der().clone(), key, &[], rustls::DEFAULT_VERSIONS)
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn issue(&self, what: &Issued) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = params(what.names.clone(), "leaf");
        params.not_before = (SystemTime::UNIX_EPOCH + Duration::from_secs(what.not_before)).into();
        params.not_after = (SystemTime::UNIX_EPOCH + Duration::from_secs(what.not_after)).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// Returns what servers with such a certificate have in common.
    pub(crate) fn config(&self, what: &Issued) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue(what);
        config(certificate, key, &[], rustls::DEFAULT_VERSIONS)
    }

    /// Returns a server with such a certificate, which offers these protocols.
    pub(crate) fn server(
        &self,
        what: &Issued,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConnection {
        let (certificate, key) = self.issue(what);
        server(certificate, key, alpn, versions)
    }
}

fn server(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConnection {
    ServerConnection::new(config(certificate, key, alpn, versions)).unwrap()
}

fn config(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
