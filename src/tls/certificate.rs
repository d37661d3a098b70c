//! What an operator wants to know of a certificate: its names, and its last day.

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::reason::printable;

/// Names of a certificate that are kept; some have hundreds.
const NAMES_MAX: usize = 8;
/// Bytes of a name that are kept: as long as a domain name may be.
const NAME_LEN_MAX: usize = 255;

/// The certificate that a server has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The names that it is for, safe to print, at most eight; its subject if it has none.
    pub names: Vec<String>,
    /// The number of all its names.
    pub names_total: usize,
    /// The end of its validity, in seconds since 1970.
    pub not_after: u64,
}

impl Certificate {
    /// Returns what a certificate in DER says; `None` when it cannot be read, which verification has let pass.
    pub fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
        let not_after = certificate.validity.not_after.to_unix_duration().as_secs();
        let alternatives = certificate.get::<SubjectAltName>().ok().flatten();
        let alternatives = alternatives.map(|(_, names)| names.0).unwrap_or_default();
        let all: Vec<String> = alternatives.iter().filter_map(name_of).collect();
        let all = if all.is_empty() { vec![certificate.subject.to_string()] } else { all };
        let names = all.iter().take(NAMES_MAX).map(|name| printable(name, NAME_LEN_MAX)).collect();
        Some(Self { names, names_total: all.len(), not_after })
    }
}

/// Returns the time from 1970 to the start of the validity of a certificate, and to its end.
pub(super) fn validity(der: &CertificateDer<'_>) -> Option<(Duration, Duration)> {
    let validity = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate.validity;
    Some((validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration()))
}

fn name_of(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) | GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        GeneralName::OtherName(_)
        | GeneralName::Rfc822Name(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::RegisteredId(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_server::{Issued, authority};

    #[test]
    fn a_certificate_has_its_names_and_its_end() {
        let issued = Issued {
            not_after: 2_000_000_000,
            ..Issued::now(&["a.example", "*.b.example", "10.0.0.1", "::1"])
        };
        let der = authority("root.example").issue(&issued).0;
        let names = ["a.example", "*.b.example", "10.0.0.1", "::1"].map(str::to_owned).to_vec();
        assert_eq!(
            Certificate::of(&der),
            Some(Certificate { names, names_total: 4, not_after: 2_000_000_000 })
        );
    }

    #[test]
    fn a_certificate_without_names_has_its_subject() {
        let der = authority("root.example").issue(&Issued::now(&[])).0;
        assert_eq!(Certificate::of(&der).unwrap().names, ["CN=leaf"]);
    }

    #[test]
    fn of_hundreds_of_names_a_few_are_kept() {
        let names: Vec<String> = (0..300).map(|number| format!("{number}.example")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let certificate = Certificate::of(&authority("root.example").issue(&Issued::now(&names)).0).unwrap();
        assert_eq!((certificate.names.len(), certificate.names_total), (NAMES_MAX, 300));
    }

    #[test]
    fn bytes_that_are_no_certificate_say_nothing() {
        for bytes in [&b""[..], b"\x30\x82\x01", &[0x30; 300]] {
            assert_eq!(Certificate::of(&CertificateDer::from(bytes)), None);
        }
    }
}
