//! Builds the paths of the API from the names that people use.

use std::fmt::Write;

/// Returns a path below `/v1`, with every segment encoded for a URL.
pub(super) fn path(segments: &[&str]) -> String {
    let mut path = String::from("/v1");
    for segment in segments {
        path.push('/');
        encode(segment, &mut path);
    }
    path
}

/// Returns `path` with the parameters that have a value.
pub(crate) fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        text.push(separator);
        text.push_str(name);
        text.push('=');
        encode(value, &mut text);
        separator = '&';
    }
    text
}

/// Returns the path of a backend.
pub(crate) fn backend(pool: &str, backend: &str) -> String {
    path(&["pools", pool, "backends", backend])
}

/// RFC 3986: every byte that is not unreserved is percent-encoded.
fn encode(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            write!(to, "%{byte:02X}").expect("writing to a String never fails");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment() {
        assert_eq!(backend("web", "[::1]:80"), "/v1/pools/web/backends/%5B%3A%3A1%5D%3A80");
        assert_eq!(path(&["sessions", "../x?y#z %"]), "/v1/sessions/..%2Fx%3Fy%23z%20%25");
    }

    #[test]
    fn a_parameter_without_a_value_is_left_out() {
        let some = |value: &str| Some(value.to_owned());
        assert_eq!(query("/v1/events", &[("after", None), ("limit", None)]), "/v1/events");
        assert_eq!(
            query("/v1/sessions", &[("pool", some("a&b")), ("client", None), ("limit", some("7"))]),
            "/v1/sessions?pool=a%26b&limit=7"
        );
    }
}
