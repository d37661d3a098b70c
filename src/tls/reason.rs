//! Why a handshake has failed, as a sentence for operators, safe to print whatever the server has sent.

use rustls::{CertificateError, Error};

/// Bytes of a sentence.
const REASON_LEN_MAX: usize = 400;
/// Names of a certificate in a sentence.
const NAMES_SHOWN_MAX: usize = 4;

const SECONDS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];

/// Returns the reason as a sentence.
pub fn reason(error: &Error) -> String {
    let sentence = if let Error::InvalidCertificate(error) = error {
        of_certificate(error)
    } else if let Error::AlertReceived(alert) = error {
        format!("the backend refuses TLS with the alert {:?}", words(&format!("{alert:?}")))
    } else if *error == Error::NoCertificatesPresented {
        "the backend shows no certificate".to_owned()
    } else {
        format!("TLS: {error}")
    };
    printable(&sentence, REASON_LEN_MAX)
}

fn of_certificate(error: &CertificateError) -> String {
    if let CertificateError::ExpiredContext { time, not_after } = error {
        let since = time.as_secs().saturating_sub(not_after.as_secs());
        format!("certificate expired {} ago", span(since))
    } else if let CertificateError::NotValidYetContext { time, not_before } = error {
        let until = not_before.as_secs().saturating_sub(time.as_secs());
        format!("certificate is not valid yet: it will be in {}", span(until))
    } else if let CertificateError::NotValidForNameContext { expected, presented } = error {
        let all: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
        let shown =
            if all.is_empty() { "no name" } else { &all[..all.len().min(NAMES_SHOWN_MAX)].join(", ") };
        let more = match all.len().saturating_sub(NAMES_SHOWN_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("certificate is for {shown}{more}, not {}", expected.to_str())
    } else if *error == CertificateError::UnknownIssuer {
        "certificate is signed by an unknown issuer".to_owned()
    } else if *error == CertificateError::BadSignature {
        "certificate is signed with another key than that of its issuer".to_owned()
    } else if *error == CertificateError::BadEncoding {
        "certificate cannot be read".to_owned()
    } else if error.to_string().contains("CaUsedAsEndEntity") {
        "certificate is that of an authority, and the file does not list it".to_owned()
    } else {
        format!("certificate: {error}")
    }
}

/// Returns the name in what rustls prints of it, which is like `DnsName("a.example")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

/// Returns the words in the name of a variant: `HandshakeFailure` is "handshake failure".
fn words(variant: &str) -> String {
    let mut words = String::with_capacity(variant.len() + 4);
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

/// Returns a span of time in its largest unit.
fn span(seconds: u64) -> String {
    let (unit, name) = SECONDS.into_iter().find(|(unit, _)| seconds >= *unit).unwrap_or((1, "second"));
    let count = seconds / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// Returns text that a server has chosen, on one line of ASCII and cut to about `len_max` bytes.
pub(super) fn printable(text: &str, len_max: usize) -> String {
    let mut printable = String::new();
    for letter in text.chars() {
        if printable.len() >= len_max {
            printable.push_str("...");
            break;
        }
        match letter {
            ' '..='~' => printable.push(letter),
            _ => printable.extend(letter.escape_default()),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::AlertDescription;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn reasons_read_as_sentences() {
        let expired =
            |time, not_after| CertificateError::ExpiredContext { time: at(time), not_after: at(not_after) };
        let named = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("web.example").unwrap(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        };
        let certificate = [
            (expired(3 * 86_400 + 5_000_000, 5_000_000), "certificate expired 3 days ago"),
            (expired(3_600, 0), "certificate expired 1 hour ago"),
            (expired(5, 5), "certificate expired 0 seconds ago"),
            (
                CertificateError::NotValidYetContext { time: at(0), not_before: at(90) },
                "certificate is not valid yet: it will be in 1 minute",
            ),
            (
                named(&["DnsName(\"a.example\")", "IpAddress(10.0.0.1)"]),
                "certificate is for a.example, 10.0.0.1, not web.example",
            ),
            (named(&[]), "certificate is for no name, not web.example"),
            (named(&["DnsName(\"a\")"; 6]), "certificate is for a, a, a, a and 2 more, not web.example"),
            (named(&["DnsName(\"a\n\u{202e}\")"]), "certificate is for a\\n\\u{202e}, not web.example"),
            (CertificateError::UnknownIssuer, "certificate is signed by an unknown issuer"),
        ];
        for (error, expected) in certificate {
            assert_eq!(reason(&Error::InvalidCertificate(error)), expected);
        }
        let other = [
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "the backend refuses TLS with the alert \"handshake failure\"",
            ),
            (Error::NoCertificatesPresented, "the backend shows no certificate"),
            (Error::DecryptError, "TLS: cannot decrypt peer's message"),
        ];
        for (error, expected) in other {
            assert_eq!(reason(&error), expected);
        }
    }

    #[test]
    fn a_reason_is_short_whatever_the_server_sends() {
        let presented = vec![format!("DnsName(\"{}\")", "a".repeat(10_000))];
        let expected = ServerName::try_from("web.example").unwrap();
        let error = CertificateError::NotValidForNameContext { expected, presented };
        assert!(reason(&Error::InvalidCertificate(error)).len() < REASON_LEN_MAX + 10);
    }
}
