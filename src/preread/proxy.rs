//! A header of the PROXY protocol of either version.

use super::header::Header;
use super::progress::Progress;
use super::{proxy_v1, proxy_v2};

/// Returns the header of either version with which `bytes` begin. What follows it is payload.
pub fn parse_proxy(bytes: &[u8]) -> Progress<Header> {
    match bytes.first() {
        None => Progress::More(proxy_v1::LEN_MIN),
        Some(first) if *first == proxy_v2::SIGNATURE[0] => proxy_v2::parse(bytes),
        Some(_) => proxy_v1::parse(bytes),
    }
}
