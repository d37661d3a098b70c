//! Lists of backends, as a file or a server may have them: a list that can be run, or one mistake with its place.

use std::collections::HashSet;

use l4lb::base::address::Address;
use l4lb::config::discover::Format;
use l4lb::config::{Mistake, check_name, parse_list};

use super::config::expect_one_line;

pub fn check(data: &[u8]) {
    for format in [Format::Json, Format::Toml] {
        let parsed = parse_list(data, format);
        assert_eq!(parsed, parse_list(data, format), "the same list is read in the same way");
        match parsed {
            Ok(list) => {
                let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
                for backend in list {
                    let Address::Ip(address) = backend.address;
                    assert!(backend.weight <= 256 && backend.priority <= 15);
                    assert!(address.port() > 0 && !address.ip().is_multicast());
                    assert!(check_name(&backend.name).is_ok(), "{:?}", backend.name);
                    assert!(
                        addresses.insert((address.ip().to_canonical(), address.port())),
                        "{address} twice"
                    );
                    assert!(names.insert(backend.name), "a name twice");
                }
            }
            Err(mistake) => {
                let Mistake { line, .. } = mistake;
                let lines = data.split(|&byte| byte == b'\n').count();
                assert!((1..=lines).contains(&line), "{mistake} of {lines} lines");
                expect_one_line(&mistake.to_string());
            }
        }
    }
}
