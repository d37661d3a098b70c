//! Name servers that answer, and name servers that lie.

use std::collections::HashMap;
use std::sync::Arc;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Udp,
    Tcp,
}

/// What is sent for a question, datagram by datagram.
type Script = dyn Fn(&Message, By) -> Vec<Message> + Send + Sync;

/// A name server that does what the script says, until the test is over.
async fn name_server(script: impl Fn(&Message, By) -> Vec<Message> + Send + Sync + 'static) -> SocketAddr {
    let script: Arc<Script> = Arc::new(script);
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Another process may have that port of UDP.
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (tcp, udp);
        }
    };
    let at = udp.local_addr().unwrap();
    let of_tcp = Arc::clone(&script);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let len = stream.read_u16().await.unwrap();
            let mut bytes = vec![0; len.into()];
            stream.read_exact(&mut bytes).await.unwrap();
            for answer in of_tcp(&Message::from_vec(&bytes).unwrap(), By::Tcp) {
                let bytes = answer.to_vec().unwrap();
                stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok((len, from)) = udp.recv_from(&mut bytes).await {
            for answer in script(&Message::from_vec(&bytes[..len]).unwrap(), By::Udp) {
                udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    at
}

/// Records by the names that they answer.
#[derive(Clone, Default)]
struct Zone(HashMap<(String, RecordType), Vec<Entry>>);

impl Zone {
    fn with(mut self, name: &str, ttl: u32, records: &[RData]) -> Self {
        let full = Name::from_ascii(name).unwrap();
        for record in records {
            let entry = Entry::from_rdata(full.clone(), ttl, record.clone());
            self.0.entry((name.to_owned(), record.record_type())).or_default().push(entry);
        }
        self
    }

    fn answer(&self, question: &Message) -> Message {
        let mut answer = question.clone().into_response();
        answer.edns = None;
        let query = question.queries[0].clone();
        match self.0.get(&(query.name().to_ascii().to_lowercase(), query.query_type())) {
            Some(entries) => answer.answers = entries.clone(),
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer
    }
}

fn ip(text: &str) -> RData {
    match text.parse().unwrap() {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn host(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
}

fn settings(name: &str, record: Record, at: SocketAddr) -> Dns {
    Dns { resolvers: vec![at], ..Dns::new(name.into(), record) }
}

const HTTP: Record = Record::Address { port: 80 };

/// ADDR:PORT@WEIGHT, with its priority behind a "/" if that is not 0.
fn shown(records: &Records) -> Vec<String> {
    let show = |(_, found): &(String, Found)| {
        let priority = Some(found.priority).filter(|&priority| priority > 0);
        let priority = priority.map(|priority| format!("/{priority}")).unwrap_or_default();
        format!("{}@{}{priority}", found.address, found.weight)
    };
    records.listed.iter().map(show).collect()
}

async fn asked(zone: Zone, settings: impl Fn(SocketAddr) -> Dns) -> Answer {
    let at = name_server(move |question, _| vec![zone.answer(question)]).await;
    ask_in_time(&settings(at)).await
}

#[track_caller]
fn records(answer: Answer) -> Records {
    let Answer::Records(records) = answer else { panic!("{answer:?}") };
    records
}

#[tokio::test]
async fn a_name_has_all_its_addresses_in_one_order_with_the_least_ttl() {
    let zone = Zone::default().with("web.test.", 60, &[ip("10.0.0.3"), ip("10.0.0.1")]).with(
        "web.test.",
        7,
        &[ip("10.0.0.2"), ip("0.0.0.0"), ip("224.0.0.1")],
    );
    let found = records(asked(zone, |at| settings("web.test", HTTP, at)).await);
    assert_eq!(shown(&found), ["10.0.0.1:80@1", "10.0.0.2:80@1", "10.0.0.3:80@1"]);
    assert_eq!(found.ttl, Duration::from_secs(7));
    let left_out = ["0.0.0.0", "224.0.0.1"].map(|ip| format!("web.test.: {ip} is no server, and left out"));
    assert_eq!(found.notes, left_out);
}

/// They were left out without a word.
#[tokio::test]
async fn an_address_of_a_service_that_is_no_server_is_named_and_the_others_serve() {
    let zone = Zone::default().with("_http._tcp.web.test.", 30, &[host(1, 1, 80, "web.test.")]).with(
        "web.test.",
        60,
        &[ip("10.0.0.1"), ip("0.0.0.0"), ip("::")],
    );
    for (prefer, expected) in [
        (Prefer::Ipv4, vec!["web.test.: 0.0.0.0 is no server, and left out"]),
        (Prefer::Both, vec!["web.test. AAAA: web.test.: none of its addresses can be dialed"]),
    ] {
        let service = |at| Dns { prefer, ..settings("_http._tcp.web.test", Record::Service, at) };
        let found = records(asked(zone.clone(), service).await);
        assert_eq!(shown(&found), ["10.0.0.1:80@1"]);
        assert!(expected.iter().all(|note| found.notes.contains(&(*note).to_owned())), "{:?}", found.notes);
    }
}

#[tokio::test]
async fn the_other_family_serves_where_the_preferred_one_has_nothing() {
    let zone = Zone::default().with("six.test.", 60, &[ip("::1")]).with(
        "two.test.",
        60,
        &[ip("::1"), ip("127.0.0.1")],
    );
    for (name, prefer, expected) in [
        ("six.test", Prefer::Ipv4, vec!["[::1]:80@1"]),
        ("two.test", Prefer::Ipv4, vec!["127.0.0.1:80@1"]),
        ("two.test", Prefer::Ipv6, vec!["[::1]:80@1"]),
    ] {
        let found = records(asked(zone.clone(), |at| Dns { prefer, ..settings(name, HTTP, at) }).await);
        assert_eq!(shown(&found), expected, "{name} {prefer:?}");
    }
}

/// 2001:db8::/32 is for documents: no machine has a route to it, unless it has a default route.
#[tokio::test]
async fn both_has_those_of_ipv6_only_where_there_is_a_route() {
    let documents = "2001:db8::1";
    let zone = Zone::default().with("web.test.", 60, &[ip("127.0.0.1"), ip(documents)]);
    let both = |at| Dns { prefer: Prefer::Both, ..settings("web.test", HTTP, at) };
    let found = records(asked(zone, both).await);
    let has_route = has_route(documents.parse().unwrap());
    assert_eq!(shown(&found).len(), 1 + usize::from(has_route), "{found:?}");
}

#[tokio::test]
async fn no_such_name_and_no_such_record_are_answers() {
    let Answer::Nothing { why, .. } = asked(Zone::default(), |at| settings("web.test", HTTP, at)).await
    else {
        panic!("it is an answer")
    };
    assert_eq!(why, "there is no web.test.");
}

#[tokio::test]
async fn a_server_that_fails_is_no_answer() {
    let at = name_server(|question, _| {
        let mut answer = question.clone().into_response();
        answer.metadata.response_code = ResponseCode::ServFail;
        vec![answer]
    })
    .await;
    assert!(matches!(ask_in_time(&settings("web.test", HTTP, at)).await, Answer::Failure(_)));
}

#[tokio::test]
async fn a_server_that_is_silent_is_no_answer() {
    let at = name_server(|_, _| Vec::new()).await;
    assert!(matches!(ask_in_time(&settings("web.test", HTTP, at)).await, Answer::Failure(_)));
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(ask_in_time(&settings("web.test", HTTP, nobody)).await, Answer::Failure(_)));
}

/// "TC kills backend": haproxy#341.
#[tokio::test]
async fn an_answer_too_large_for_a_datagram_comes_by_tcp() {
    let all: Vec<RData> = (1..=60).map(|last| ip(&format!("10.0.0.{last}"))).collect();
    let zone = Zone::default().with("web.test.", 60, &all);
    let at = name_server(move |question, by| {
        let mut answer = zone.answer(question);
        if by == By::Udp {
            answer.metadata.truncation = true;
            answer.answers.truncate(3);
        }
        vec![answer]
    })
    .await;
    let found = records(ask_in_time(&settings("web.test", HTTP, at)).await);
    assert_eq!(found.listed.len(), 60);
}

#[tokio::test]
async fn an_answer_with_another_id_or_to_another_question_is_ignored() {
    let zone =
        Zone::default().with("web.test.", 60, &[ip("10.0.0.1")]).with("evil.test.", 60, &[ip("10.6.6.6")]);
    let at = name_server(move |question, _| {
        let good = zone.answer(question);
        let mut other_id = good.clone();
        other_id.metadata.id = good.metadata.id.wrapping_add(1);
        other_id.answers[0].data = ip("10.6.6.6");
        let mut other_question = good.clone();
        other_question.queries[0].set_name(Name::from_ascii("evil.test.").unwrap());
        other_question.answers[0].data = ip("10.6.6.6");
        vec![other_id, other_question, good]
    })
    .await;
    match ask_in_time(&settings("web.test", HTTP, at)).await {
        Answer::Records(found) => assert_eq!(shown(&found), ["10.0.0.1:80@1"]),
        Answer::Failure(_) => {}
        Answer::Nothing { why, .. } => panic!("{why}"),
    }
}

#[tokio::test]
async fn each_priority_of_a_service_is_a_tier_and_has_weights_of_its_own() {
    let zone = Zone::default()
        .with(
            "_http._tcp.web.test.",
            30,
            &[
                host(10, 60, 8080, "a.test."),
                host(10, 0, 8081, "b.test."),
                host(20, 40, 8082, "c.test."),
                host(10, 40_000, 8083, "a.test."),
            ],
        )
        .with("a.test.", 60, &[ip("10.0.0.1")])
        .with("b.test.", 60, &[ip("10.0.0.2"), ip("10.0.0.3")])
        .with("c.test.", 9, &[ip("10.0.0.4")]);
    let found = records(asked(zone, |at| settings("_http._tcp.web.test", Record::Service, at)).await);
    let expected =
        ["10.0.0.1:8080@1", "10.0.0.1:8083@256", "10.0.0.2:8081@1", "10.0.0.3:8081@1", "10.0.0.4:8082@40/1"];
    assert_eq!(shown(&found), expected);
    assert_eq!(found.ttl, Duration::from_secs(9));
}

/// RFC 2782 gives the order of the numbers only, not their distance.
#[tokio::test]
async fn priorities_beyond_sixteen_share_the_last_tier_with_one_scale_of_weights() {
    let hosts: Vec<RData> = (0..18)
        .map(|number| host(100 * number, 1_024 * u16::from(number == 17), 8_000 + number, "a.test."))
        .collect();
    let zone =
        Zone::default().with("_http._tcp.web.test.", 30, &hosts).with("a.test.", 60, &[ip("10.0.0.1")]);
    let found = records(asked(zone, |at| settings("_http._tcp.web.test", Record::Service, at)).await);
    let tiers: Vec<u8> = found.listed.iter().map(|(_, found)| found.priority).collect();
    assert_eq!(tiers, (0..=15).chain([15, 15]).collect::<Vec<u8>>());
    let weights: Vec<u16> = found.listed[14..].iter().map(|(_, found)| found.weight).collect();
    assert_eq!(weights, [1, 1, 1, 256]);
    assert_eq!(found.notes, ["18 priorities, more than 16: the last ones share priority 15"]);
}

#[test]
fn weights_keep_their_ratio_as_far_as_256_allow() {
    for (weight, heaviest, expected) in [
        (0, 0, 1),
        (0, 60, 1),
        (60, 60, 60),
        (256, 256, 256),
        (65_535, 65_535, 256),
        (100, 1000, 25),
        (1, 65_535, 1),
    ] {
        let weights = Weights { heaviest, has_zero: heaviest == 0 || weight == 0 };
        assert_eq!(scaled(weight, weights), expected, "{weight} of {heaviest}");
    }
}

/// 0 and 1 were both 1: the host that should get sessions almost never got half of them.
#[test]
fn beside_a_host_of_weight_0_the_heaviest_has_256() {
    for (weight, heaviest, expected) in [(0, 1, 1), (1, 1, 256), (5, 10, 128), (10, 10, 256), (0, 10, 1)] {
        let weights = Weights { heaviest, has_zero: true };
        assert_eq!(scaled(weight, weights), expected, "{weight} of {heaviest}");
    }
}

/// An answer to `question` that is a refusal.
fn refusal(question: &Message, code: ResponseCode) -> Vec<Message> {
    let mut answer = question.clone().into_response();
    answer.edns = None;
    answer.metadata.response_code = code;
    vec![answer]
}

#[tokio::test]
async fn a_server_that_fails_or_is_silent_leaves_the_question_to_the_next_one() {
    let zone = Zone::default().with("web.test.", 60, &[ip("10.0.0.1")]);
    let mut resolvers = Vec::new();
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        resolvers.push(name_server(move |question, _| refusal(question, code)).await);
    }
    for _ in 0..2 {
        resolvers.push(name_server(|_, _| Vec::new()).await);
    }
    resolvers.push(name_server(move |question, _| vec![zone.answer(question)]).await);
    let settings = Dns { resolvers: resolvers.clone(), ..settings("web.test", HTTP, resolvers[0]) };
    let found = records(ask_in_time(&settings).await);
    assert_eq!(shown(&found), ["10.0.0.1:80@1"]);
}

#[tokio::test]
async fn a_negative_answer_of_the_first_server_is_final() {
    let zone = Zone::default().with("web.test.", 60, &[ip("10.0.0.1")]);
    let knows_nothing = name_server(|question, _| vec![Zone::default().answer(question)]).await;
    let other = name_server(move |question, _| vec![zone.answer(question)]).await;
    let resolvers = vec![knows_nothing, other];
    let settings = Dns { resolvers, ..settings("web.test", HTTP, other) };
    assert!(matches!(ask_in_time(&settings).await, Answer::Nothing { .. }));
}

/// What a resolv.conf(5) with `search corp.test` and the name server `at` has.
fn with_search_list(at: SocketAddr) -> Arc<Servers> {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (at.port(), at.port());
    let server = NameServerConfig::new(at.ip(), true, vec![udp, tcp]);
    let search = vec![Name::from_ascii("corp.test.").unwrap()];
    Arc::new(Servers::of_system(ResolverConfig::from_parts(None, search, vec![server]), 1).unwrap())
}

/// SERVFAIL of the name itself and NXDOMAIN of the last one of the search list were believed to be "there is none".
#[tokio::test]
async fn a_failure_of_one_name_of_the_search_list_is_a_failure() {
    let at = name_server(|question, _| {
        let name = question.queries[0].name().to_ascii();
        let is_within = name.ends_with(".corp.test.");
        refusal(question, if is_within { ResponseCode::NXDomain } else { ResponseCode::ServFail })
    })
    .await;
    // The second one is asked for within the domain first.
    for name in ["web.service", "web"] {
        let answer = ask_servers(&with_search_list(at), &settings(name, HTTP, at)).await;
        assert!(matches!(answer, Err(Miss::Failure(_))), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_name_without_a_dot_at_its_end_may_be_within_the_search_list() {
    let zone = Zone::default()
        .with("web.corp.test.", 60, &[ip("10.0.0.1")])
        .with("a.b.corp.test.", 60, &[ip("10.0.0.2")])
        .with("a.c.", 60, &[ip("10.0.0.3")])
        .with("a.c.corp.test.", 60, &[ip("10.0.0.4")]);
    let at = name_server(move |question, _| vec![zone.answer(question)]).await;
    for (name, expected) in [
        ("web", Some("10.0.0.1:80@1")),
        ("a.b", Some("10.0.0.2:80@1")),
        ("a.c", Some("10.0.0.3:80@1")),
        ("web.", None),
        ("a.b.", None),
    ] {
        match (ask_servers(&with_search_list(at), &settings(name, HTTP, at)).await, expected) {
            (Ok(found), Some(expected)) => assert_eq!(shown(&found), [expected], "{name}"),
            (Err(Miss::Nothing(why, _)), None) => assert_eq!(why, format!("there is no {name}")),
            (answer, _) => panic!("{name}: {answer:?}"),
        }
    }
}

/// Name servers in the way answer 0.0.0.0 for what they hide: that was believed to be no record at all.
#[tokio::test]
async fn addresses_of_which_none_can_be_dialed_are_a_failure() {
    let zone = Zone::default().with("web.test.", 60, &[ip("0.0.0.0")]).with("web.test.", 60, &[ip("::")]);
    for prefer in Prefer::ALL {
        let asked = asked(zone.clone(), |at| Dns { prefer, ..settings("web.test", HTTP, at) }).await;
        let expected = Answer::Failure("web.test.: none of its addresses can be dialed".into());
        assert_eq!(asked, expected, "{prefer:?}");
    }
}

/// One family that cannot be asked for made nothing of the other one.
#[tokio::test]
async fn with_both_families_one_may_be_unknown() {
    let zone = Zone::default().with("_http._tcp.web.test.", 30, &[host(1, 1, 80, "web.test.")]).with(
        "web.test.",
        60,
        &[ip("127.0.0.1")],
    );
    let at = name_server(move |question, _| {
        let is_unknown = question.queries[0].query_type() == RecordType::AAAA;
        if is_unknown { refusal(question, ResponseCode::ServFail) } else { vec![zone.answer(question)] }
    })
    .await;
    for (name, record) in [("web.test", HTTP), ("_http._tcp.web.test", Record::Service)] {
        let both = Dns { prefer: Prefer::Both, ..settings(name, record, at) };
        let found = records(ask_in_time(&both).await);
        assert_eq!(shown(&found), ["127.0.0.1:80@1"]);
        // Those of IPv4 are known: what the answer lacks of them goes.
        assert_eq!(found.unknown_hosts, HashSet::from(["web.test. AAAA".to_owned()]));
        assert_eq!(found.listed[0].0, "web.test.");
        assert!(found.notes[0].starts_with("web.test. AAAA: "), "{:?}", found.notes);
    }
}

/// A few small answers suffice: the addresses of one host count once for each of its ports.
#[test]
fn a_list_without_an_end_is_cut_and_so_are_its_notes() {
    let target = Name::from_ascii("a.test.").unwrap();
    let hosts: Vec<SRV> = (1..=1000).map(|port| SRV::new(1, 1, port, target.clone())).collect();
    let hosts: Vec<&SRV> = hosts.iter().chain(&hosts).collect();
    let all: Vec<IpAddr> = (0..100).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    let ttl = Duration::from_secs(60);
    let resolved =
        Resolved::from([(target, Ok(Addresses { all, ttl, no_servers: Vec::new(), unknown: None }))]);
    for (hosts, listed, notes) in [
        (&hosts[..], LISTED_MAX, vec!["more than 65536 addresses: the others are left out".to_owned()]),
        (&[hosts[0], hosts[0]], 100, {
            let twice = |last| format!("10.0.0.{last}:1 is listed twice, the first counts");
            (0..NOTES_MAX).map(twice).chain(["and 84 more".to_owned()]).collect()
        }),
    ] {
        let (mut records, mut written) = (Records { ttl, ..Records::default() }, Notes::default());
        combine_answers(hosts, &resolved, Prefer::Ipv4, &mut records, &mut written);
        assert_eq!((records.listed.len(), written.into_list()), (listed, notes));
    }
}

#[tokio::test]
async fn a_service_that_is_not_available_has_no_backend() {
    let zone = Zone::default().with("_http._tcp.web.test.", 30, &[host(0, 0, 0, ".")]);
    let answer = asked(zone, |at| settings("_http._tcp.web.test", Record::Service, at)).await;
    let Answer::Nothing { why, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(why, "_http._tcp.web.test. is not available (RFC 2782)");
}

#[tokio::test]
async fn a_host_that_cannot_be_resolved_is_unknown_and_the_others_serve() {
    let zone = Zone::default()
        .with("_http._tcp.web.test.", 30, &[host(1, 1, 80, "good.test."), host(1, 1, 80, "bad.test.")])
        .with("good.test.", 60, &[ip("10.0.0.1")]);
    let at = name_server(move |question, _| {
        let mut answer = zone.answer(question);
        if question.queries[0].name().to_ascii().to_lowercase() == "bad.test." {
            answer.metadata.response_code = ResponseCode::ServFail;
        }
        vec![answer]
    })
    .await;
    let found = records(ask_in_time(&settings("_http._tcp.web.test", Record::Service, at)).await);
    assert_eq!(shown(&found), ["10.0.0.1:80@1"]);
    assert_eq!(found.unknown_hosts, HashSet::from(["bad.test.".to_owned()]));
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
}

#[tokio::test]
async fn one_address_under_two_names_is_one_backend() {
    let zone = Zone::default()
        .with("_http._tcp.web.test.", 30, &[host(1, 7, 80, "a.test."), host(1, 9, 80, "b.test.")])
        .with("a.test.", 60, &[ip("10.0.0.1")])
        .with("b.test.", 60, &[ip("10.0.0.1")]);
    let found = records(asked(zone, |at| settings("_http._tcp.web.test", Record::Service, at)).await);
    assert_eq!(shown(&found), ["10.0.0.1:80@7"]);
    assert_eq!(found.notes, ["10.0.0.1:80 is listed twice, the first counts"]);
}

#[tokio::test]
async fn addresses_that_come_along_are_not_asked_for_again() {
    let zone = Zone::default().with("_http._tcp.web.test.", 30, &[host(1, 1, 80, "a.test.")]);
    let at = name_server(move |question, _| {
        let mut answer = zone.answer(question);
        if question.queries[0].query_type() == RecordType::SRV {
            let a = Name::from_ascii("a.test.").unwrap();
            answer.additionals = vec![Entry::from_rdata(a, 5, ip("10.0.0.9"))];
        }
        vec![answer]
    })
    .await;
    let found = records(ask_in_time(&settings("_http._tcp.web.test", Record::Service, at)).await);
    assert_eq!((shown(&found), found.ttl), (vec!["10.0.0.9:80@1".to_owned()], Duration::from_secs(5)));
}
