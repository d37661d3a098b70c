//! State files: nothing that no request could have made is put back, and what is read is written as it was.

use std::collections::HashSet;

use l4lb::base::address::Address;
use l4lb::base::time::Instant;
use l4lb::config::{self, Overrides, check_running_name, one_line};
use l4lb::control::membership::listed::listed_in;
use l4lb::control::membership::persist::{Restored, restore};
use l4lb::control::membership::state_file::{Contents, Saved};

use super::config::{expect_one_line, resolve};

/// What it is put back on.
const FILE: &str = "[admin]\nstate_file = \"/s\"\n[[listener]]\nbind = \"127.0.0.1:9090\"\n[[pool]]\nname = \"web\"\n\
     backend = [{ name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\" }]\n\
     [[pool.discover]]\ntype = \"dns\"\nname = \"web.test\"\nport = 80\ninitial = \"state_file\"\n";

fn written(contents: &Contents) -> Vec<u8> {
    let Contents { backends, sources, placed, .. } = contents;
    serde_json::to_vec(&Saved::of(backends.clone(), sources.clone(), placed.clone())).expect("JSON")
}

pub fn check(data: &[u8]) {
    let contents = match Contents::parse(data) {
        Ok(contents) => contents,
        Err(what) => return expect_one_line(&one_line(&what)),
    };
    contents.refused.iter().for_each(|refused| expect_one_line(&one_line(refused)));
    let text = written(&contents);
    let again = Contents::parse(&text).expect("what is written is read");
    assert!(again.refused.is_empty(), "{:?}", again.refused);
    assert_eq!(written(&again), text);
    let config =
        config::parse(FILE, "fuzz.toml", &Overrides::default(), &mut resolve).expect("a good config");
    let listed = listed_in(contents.sources, &config, Default::default());
    // By the clock on the wall it is 1970.
    let Restored { snapshot, left_out, .. } = restore(
        contents.backends,
        contents.placed,
        &listed,
        &config,
        (Instant::default(), Default::default()),
    );
    left_out.iter().for_each(|left_out| expect_one_line(&one_line(left_out)));
    for pool in &snapshot.pools {
        let mut names = HashSet::new();
        let mut addresses = HashSet::new();
        for backend in &pool.backends {
            assert!(
                check_running_name(&backend.name).is_ok() && names.insert(&backend.name),
                "{:?}",
                backend.name
            );
            assert!(addresses.insert(&backend.address), "{} twice", backend.address);
            let Address::Ip(address) = backend.address;
            assert!(
                address.port() > 0
                    && !address.ip().is_multicast()
                    && address != ([127, 0, 0, 1], 9090).into(),
                "{address}"
            );
            assert!(backend.weight() <= 256);
        }
    }
}
