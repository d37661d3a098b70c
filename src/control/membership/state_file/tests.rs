//! What is written is read back, and what no request could have made is refused.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

pub(in crate::control) fn backend(name: &str) -> SavedBackend {
    SavedBackend {
        pool: "web".into(),
        name: name.into(),
        weight: 1,
        weight_set: None,
        admin: Admin::Ready,
        admin_set: None,
        health: OverrideTo::Auto,
        registered: None,
    }
}

pub(in crate::control) fn saved(backends: impl IntoIterator<Item = SavedBackend>) -> Saved {
    Saved::of(backends.into_iter().collect(), Vec::new(), Vec::new())
}

fn arbitrary_backend() -> impl Strategy<Value = SavedBackend> {
    let admin = prop::sample::select(vec![Admin::Ready, Admin::Drain, Admin::Maint]);
    let health = prop::sample::select(vec![OverrideTo::Auto, OverrideTo::Up, OverrideTo::Down]);
    let name = "[A-Za-z0-9._:\\[\\]-]{0,63}[A-Za-z0-9]";
    let second = (0_i64..253_402_000_000).prop_map(|at| Timestamp::from_second(at).unwrap());
    let weight = 0..=WEIGHT_MAX;
    let priority = 0..=PRIORITY_MAX;
    let holder = (name, any::<bool>(), weight.clone(), priority.clone(), second.clone()).prop_map(
        |(holder, known, weight, priority, lease)| SavedHolder { holder, known, weight, priority, lease },
    );
    // Duplicates appear now and then, which no request can cause.
    let holders = prop::collection::vec(holder, 0..3)
        .prop_filter("no holder twice", |all| all.len() < 2 || all[0].holder != all[1].holder);
    let address = any::<std::net::SocketAddr>().prop_map(Address::Ip).prop_filter("a server", |address| {
        matches!(Target::parse(&address.to_string()), Ok(Target::Address(_)))
    });
    let registration = (address, priority, ".{0,40}", prop::option::of(second.clone()), holders).prop_map(
        |(address, priority, who, lease, holders)| SavedRegistration {
            address,
            priority,
            who,
            lease,
            holders,
        },
    );
    let author = (".{0,40}", second).prop_map(|(who, since)| SavedAuthor { who, since });
    let admin = (admin, prop::option::of(author));
    (name, name, weight.clone(), prop::option::of(weight), admin, health, prop::option::of(registration))
        .prop_map(|(pool, name, weight, weight_set, (admin, admin_set), health, registered)| SavedBackend {
            pool,
            name,
            weight,
            weight_set,
            admin,
            admin_set,
            health,
            registered,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_written_file_can_be_read_back(backends in prop::collection::vec(arbitrary_backend(), 0..8)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut seen = HashSet::new();
        let saved = saved(backends.into_iter().filter(|backend| backend.check(&mut seen).is_ok()));
        saved.write(&path).unwrap();
        let read = Contents::read(&path).unwrap();
        prop_assert_eq!(read.refused, Vec::<String>::new());
        // The text of an address has no IPv6 flow, and no address of a request has one.
        let text = |backends: Vec<SavedBackend>| serde_json::to_string(&backends).unwrap();
        prop_assert_eq!(text(read.backends), text(saved.backends));
    }
}

#[test]
fn without_a_file_nothing_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let contents = Contents::read(&folder.path().join("none")).unwrap();
    assert!(contents.backends.is_empty() && contents.refused.is_empty());
}

#[test]
fn a_broken_file_is_reported_with_its_line_and_what_to_do() {
    let good = serde_json::to_string_pretty(&saved([backend("a")])).unwrap();
    for (from, to, expected) in [
        ("", "", None),
        ("\"web\"", "web", Some("line 5 column 15")),
        ("\"version\": 1", "\"version\": 9", Some("version: this l4lb knows 1 only, got 9 at line 2")),
        ("\"backends\"", "\"backend\"", Some("unknown field `backend`")),
        ("\n}", "", Some("EOF while parsing")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::write(&path, good.replace(from, to)).unwrap();
        match (Contents::read(&path), expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => {
                let error = error.to_string();
                assert!(error.starts_with(&format!("state_file {}: ", path.display())), "{error}");
                assert!(error.contains(expected) && error.contains("move it away"), "{error}");
            }
            other => panic!("{to}: {other:?}"),
        }
    }
}

/// One weight of 257 kept the process from starting, and an address that no request may have was dialed.
#[test]
fn a_saved_entry_is_refused_exactly_when_no_request_could_have_made_it() {
    let second = Timestamp::from_second(1_700_000_000).unwrap();
    let held = |holder: &str| SavedHolder {
        holder: holder.into(),
        known: true,
        weight: 1,
        priority: 0,
        lease: second,
    };
    let registered = SavedRegistration {
        address: ([127, 0, 0, 1], 3).into(),
        priority: 3,
        who: "uid 7".into(),
        lease: Some(second),
        holders: vec![held("one"), held("two")],
    };
    let bad = SavedBackend { weight_set: Some(2), registered: Some(registered), ..backend("bad") };
    let good = serde_json::to_string(&saved([backend("a"), bad, backend("c")])).unwrap();
    assert_eq!(Contents::parse(good.as_bytes()).unwrap().backends.len(), 3);
    let many: Vec<_> = (0..=HOLDERS_MAX).map(|number| held(&number.to_string())).collect();
    let many = serde_json::to_string(&many).unwrap();
    let holders = serde_json::to_string(&[held("one"), held("two")]).unwrap();
    for (from, to, expected) in [
        ("\"weight_set\":2", "\"weight_set\":257", "weight: must be 0..=256, got 257"),
        ("\"weight_set\":2", "\"weight_set\":-1", "invalid value"),
        ("\"weight_set\":2", "\"weights\":2", "unknown field `weights`"),
        ("127.0.0.1:3", "127.0.0.1:0", "address: port must be 1..=65535"),
        ("127.0.0.1:3", "224.0.0.1:3", "address: must not be a multicast or broadcast address"),
        ("127.0.0.1:3", "localhost:3", "address: must be an IP address and a port"),
        ("127.0.0.1:3", "unix:/run/web.sock", "address: \"unix:/run/web.sock\" is a Unix socket"),
        ("\"priority\":3", "\"priority\":16", "priority: must be 0..=15, got 16"),
        ("\"priority\":3", "\"priority\":\"last\"", "priority: must be 0..=15, got \"last\""),
        ("\"priority\":3", "\"priority\":3,\"backup\":true", "duplicate field"),
        ("\"one\"", "\"\"", "name: must be 1..=64 characters"),
        ("\"one\"", "\"two\"", "holders: one of them is there twice"),
        (&holders, &many, "holders: must be 0..=16, got 17"),
        ("2023-11-14T22:13:20Z", "soon", "failed to parse"),
        ("\"bad\"", "\"..\"", "must have a letter or a digit"),
        ("\"bad\"", "\"a\"", "another entry has that name"),
        ("\"bad\"", "7", "invalid type"),
    ] {
        assert!(good.contains(from), "{from}");
        let contents = Contents::parse(good.replace(from, to).as_bytes()).unwrap();
        let names: Vec<&str> = contents.backends.iter().map(|backend| backend.name.as_str()).collect();
        assert_eq!(names, ["a", "c"], "{to}");
        let [refused] = &contents.refused[..] else { panic!("{to}: {:?}", contents.refused) };
        assert!(refused.starts_with("backends[1] (pool \"web\", backend "), "{refused}");
        assert!(refused.contains(expected), "{to}: {refused}");
    }
}

#[test]
fn a_saved_place_is_refused_exactly_when_no_request_could_have_set_it() {
    let since = Timestamp::from_second(1_700_000_000).unwrap();
    let placed = |name: &str| SavedPlacement {
        pool: "web".into(),
        name: name.into(),
        address: Some(([127, 0, 0, 1], 3).into()),
        priority: Some(7),
        who: "uid 7".into(),
        since,
    };
    let all = vec![placed("a"), placed("bad"), SavedPlacement { address: None, ..placed("c") }];
    let good = serde_json::to_string(&Saved::of(Vec::new(), Vec::new(), all.clone())).unwrap();
    assert_eq!(Contents::parse(good.as_bytes()).unwrap().placed, all);
    let (before, bad) = good.split_once("\"bad\"").unwrap();
    for (from, to, expected) in [
        ("127.0.0.1:3", "127.0.0.1:0", "address: port must be 1..=65535"),
        ("127.0.0.1:3", "localhost:3", "address: must be an IP address and a port"),
        ("\"priority\":7", "\"priority\":16", "priority: must be 0..=15, got 16"),
        ("\"priority\"", "\"prio\"", "unknown field `prio`"),
    ] {
        let text = format!("{before}\"bad\"{}", bad.replacen(from, to, 1));
        let contents = Contents::parse(text.as_bytes()).unwrap();
        let names: Vec<&str> = contents.placed.iter().map(|placed| placed.name.as_str()).collect();
        assert_eq!(names, ["a", "c"], "{to}");
        let [refused] = &contents.refused[..] else { panic!("{to}: {:?}", contents.refused) };
        assert!(refused.starts_with("placed[1] (pool \"web\", backend \"bad\"): "), "{refused}");
        assert!(refused.contains(expected), "{to}: {refused}");
    }
    let host = format!("{before}\"web@10.0.0.1\"{bad}");
    let refused = Contents::parse(host.as_bytes()).unwrap().refused;
    let expected = ": address: the addresses of a host name are those that it resolves to";
    assert!(refused[0].ends_with(expected), "{refused:?}");
    let twice = format!("{before}\"a\"{bad}");
    let refused = Contents::parse(twice.as_bytes()).unwrap().refused;
    assert_eq!(refused, ["placed[1] (pool \"web\", backend \"a\"): another entry has that name"]);
}

#[test]
fn the_backups_of_a_version_without_tiers_are_in_the_last_one() {
    let text = |backup: bool| {
        let held = format!(
            "{{\"holder\":\"h\",\"known\":true,\"weight\":1,\"backup\":{backup},\"lease\":\"2023-11-14T22:13:20Z\"}}"
        );
        format!(
            "{{\"version\":1,\"backends\":[{{\"pool\":\"web\",\"name\":\"a\",\"weight\":1,\"admin\":\"ready\",\"health\":\"auto\",\
             \"registered\":{{\"address\":\"127.0.0.1:3\",\"backup\":{backup},\"who\":\"uid 7\",\"lease\":null,\"holders\":[{held}]}}}}]}}"
        )
    };
    for (backup, expected) in [(true, 15), (false, 0)] {
        let contents = Contents::parse(text(backup).as_bytes()).unwrap();
        let registered = contents.backends[0].registered.as_ref().unwrap();
        assert_eq!((registered.priority, registered.holders[0].priority), (expected, expected));
    }
}

#[test]
fn a_refused_entry_is_kept_in_a_file_beside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    for text in ["old", "older"] {
        _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        let kept = Contents::keep_refused(&path).unwrap();
        saved([]).write(&path).unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), text);
    }
}

#[test]
fn the_file_is_for_this_user_only_and_replaced_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    fs::write(folder.path().join("state.json.new"), "left behind").unwrap();
    fs::write(&path, "old").unwrap();
    let old = File::open(&path).unwrap();
    saved([backend("a")]).write(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(io::read_to_string(old).unwrap(), "old", "a reader gets the old file or the new one");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
