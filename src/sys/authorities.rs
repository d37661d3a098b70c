//! The certificate authorities that checks trust: of a file, or of this system.

use std::io::Read;
use std::path::Path;

use super::files::open_regular;
use crate::tls::Authorities;

/// Far more than the bundle of any system, which has some 200 KiB.
const FILE_LEN_MAX: u64 = 4 << 20;

/// Returns the authorities of the file at `path`; without one those of this system, where OpenSSL looks for them:
/// `/etc/ssl/certs`, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Fails with a sentence.
pub(super) fn authorities(path: Option<&Path>) -> Result<Authorities, String> {
    let Some(path) = path else { return of_system() };
    let file = open_regular(path).map_err(|error| format!("cannot read it: {error}"))?;
    let mut text = Vec::new();
    let len = file.take(FILE_LEN_MAX + 1).read_to_end(&mut text);
    if len.map_err(|error| format!("cannot read it: {error}"))? as u64 > FILE_LEN_MAX {
        return Err(format!("larger than {} MiB", FILE_LEN_MAX >> 20));
    }
    Authorities::of_pem(&text)
}

fn of_system() -> Result<Authorities, String> {
    let found = rustls_native_certs::load_native_certs();
    let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
    Authorities::of(found.certs).map_err(|_| format!("this system has no authorities to trust{why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_server::authority;

    #[test]
    fn a_file_of_authorities_is_read_whole_and_only_if_it_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let count = || authorities(Some(&path)).map(|authorities| authorities.count());
        assert!(count().unwrap_err().starts_with("cannot read it: No such file"));
        std::fs::write(&path, authority("root.example").pem()).unwrap();
        assert_eq!(count(), Ok(1));
        std::fs::File::options().append(true).open(&path).unwrap().set_len(FILE_LEN_MAX + 1).unwrap();
        assert_eq!(count(), Err("larger than 4 MiB".to_owned()));
        assert!(authorities(Some(folder.path())).unwrap_err().contains("directory"));
    }
}
