//! The header of the PROXY protocol in front of a check.

use crate::base::address::Address;
use crate::config::model;
use crate::health::Probe;
use crate::preread::Addresses;
use crate::sys::Kernel;
use crate::worker::proxy_header;

/// Puts the header in front of a check that is being dialed, if its pool has one for checks. Returns it.
pub(super) fn begin_with_header<K: Kernel>(
    kernel: &mut K,
    pool: &model::Pool,
    socket: &K::Socket,
    target: &Address,
    probe: &mut Probe,
) -> Vec<u8> {
    let Some(proxy) = &pool.proxy_protocol else { return Vec::new() };
    let Address::Ip(destination) = *target;
    // The kernel chooses the source address of a dial when it begins.
    let source = kernel.local_address(socket).ok();
    let addresses = source.map(|source| Addresses { source, destination });
    let mut room = [0; proxy_header::LEN_MAX];
    let len = proxy_header::write_of_check(&mut room, proxy, addresses);
    let header = room[..usize::from(len)].to_vec();
    probe.send_first(&header);
    header
}
