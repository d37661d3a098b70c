//! All keys with a prefix, as of one revision.

use serde_json::json;

use crate::etcd::client::Client;
use crate::etcd::messages::{Header, KeyValue, Range, encode, end_of};

/// Keys of one answer: with values of some kilobytes it has a few megabytes.
pub const PAGE_LEN: usize = 1_000;

impl Client {
    /// Returns all keys with `prefix` as of one revision, which the header has, in pages of at most `page_len` keys. Each is
    /// kept as `keep` returns it. Fails when there are more than `keys_max`, and with what went wrong.
    pub async fn list(
        &mut self,
        prefix: &[u8],
        keys_max: usize,
        page_len: usize,
        keep: impl Fn(KeyValue) -> KeyValue,
    ) -> Result<(Header, Vec<KeyValue>), String> {
        let (mut from, end) = (prefix.to_vec(), end_of(prefix));
        let (mut as_of, mut keys) = (None, Vec::new());
        loop {
            let request = json!({
                "key": encode(&from),
                "range_end": encode(&end),
                "limit": page_len.min(PAGE_LEN).to_string(),
                "revision": as_of.map_or(0, |as_of: Header| as_of.revision).to_string(),
            });
            let page: Range = self.call("kv/range", &request).await.map_err(|error| error.to_string())?;
            let header = *as_of.get_or_insert(page.header);
            let next = page.kvs.last().map(|last| [&last.key[..], b"\0"].concat());
            keys.extend(page.kvs.into_iter().map(&keep));
            if keys.len() > keys_max {
                return Err(format!("more than {keys_max} keys"));
            }
            match next.filter(|next| page.more && *next > from) {
                Some(next) => from = next,
                None => return Ok((header, keys)),
            }
        }
    }
}
