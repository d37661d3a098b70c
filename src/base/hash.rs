//! The hash of names and addresses: crc32 spread over 64 bits.
//! Never seeded at run time: the same key gives the same number in every worker and after every restart.

use std::net::IpAddr;

/// Returns a 64-bit hash of `bytes`; `salt` makes independent hashes of one key.
pub fn hash(bytes: &[u8], salt: u32) -> u64 {
    let mut crc = crc32fast::Hasher::new_with_initial(salt);
    crc.update(bytes);
    avalanche((u64::from(salt) << 32) | u64::from(crc.finalize()))
}

/// Returns the hash of a client's address; an IPv4 client of a dual-stack listener hashes as IPv4.
pub fn hash_ip(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => hash(&v4.octets(), 4),
        IpAddr::V6(v6) => hash(&v6.octets(), 6),
    }
}

/// A bijection in which every input bit flips about half of the output bits (the finaliser of SplitMix64).
/// crc32 alone is linear: neighbours would land on neighbours.
pub const fn avalanche(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn a_mapped_address_hashes_like_its_ipv4_form() {
        let v4 = Ipv4Addr::new(192, 0, 2, 7);
        assert_eq!(hash_ip(IpAddr::V4(v4)), hash_ip(IpAddr::V6(v4.to_ipv6_mapped())));
        assert_ne!(hash_ip(IpAddr::V4(v4)), hash_ip(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }

    #[test]
    fn salts_make_independent_hashes() {
        assert_ne!(hash(b"web-1", 1), hash(b"web-1", 2));
    }

    #[test]
    fn a_key_keeps_its_hash_for_ever() {
        // Clients keep their backend across versions only while this number stands.
        assert_eq!(hash(b"l4lb", 0), avalanche(u64::from(crc32fast::hash(b"l4lb"))));
    }

    #[test]
    fn one_flipped_input_bit_flips_about_half_of_the_output() {
        for bit in 0..64 {
            let flips = (avalanche(12_345) ^ avalanche(12_345 ^ (1 << bit))).count_ones();
            assert!((14..=50).contains(&flips), "bit {bit} flipped {flips}");
        }
    }
}
