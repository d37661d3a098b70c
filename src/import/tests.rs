use super::*;

/// The file of this configuration without its comments, and the lines of its notes.
#[track_caller]
fn import(text: &str) -> (String, Vec<usize>) {
    let imported = haproxy(text, "haproxy.cfg").expect("valid");
    let text = imported.text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    (lines.join("\n").trim().to_owned(), imported.notes.iter().map(|note| note.line).collect())
}

#[test]
fn a_frontend_and_its_backend_become_a_listener_and_a_pool() {
    let (text, notes) = import(
        "global
    maxconn 10000
    nbthread 4
    hard-stop-after 5m
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 60000
    retries 2
frontend in
    bind :80
    bind 10.0.0.1:81 name second maxconn 50
    maxconn 8000
    default_backend web
backend web
    balance leastconn
    option tcp-check
    default-server inter 1s fall 2
    server a 10.0.0.2:8080 check weight 10
    server b [2001:db8::1]:8080 check backup
",
    );
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(
        text,
        r#"[global]
workers = 4
max_sessions = 10000
drain_timeout = "5m"

[[listener]]
name = "in"
bind = "0.0.0.0:80"
pool = "web"
max_sessions = 8000

[[listener]]
name = "second"
bind = "10.0.0.1:81"
pool = "web"
max_sessions = 50

[[pool]]
name = "web"
balance = "least_connections"
retries = 2

[pool.timeouts]
connect = "5s"
idle = "1m"

[pool.health]
type = "tcp"
interval = "1s"
fall = 2

[[pool.backend]]
name = "a"
address = "10.0.0.2:8080"
weight = 10

[[pool.backend]]
name = "b"
address = "[2001:db8::1]:8080"
backup = true"#
    );
}

#[test]
fn a_side_may_be_silent_for_the_longer_of_both_timeouts() {
    let (text, notes) = import(
        "listen a
    bind :80
    timeout client 10m
    timeout server 1m
    server a 10.0.0.2
",
    );
    assert!(notes.is_empty(), "{notes:?}");
    assert!(text.contains("[listener.timeouts]\nidle = \"10m\""), "{text}");
    assert!(text.contains("address = \"10.0.0.2:80\""), "{text}");
    assert!(text.contains("type = \"off\""), "{text}");
}

#[test]
fn checks_with_one_send_and_one_expect_are_kept_and_longer_ones_only_connect() {
    let check = |lines: &str| {
        import(&format!("listen a\n bind :80\n option tcp-check\n{lines} server a 10.0.0.2:6379 check\n"))
    };
    let (text, notes) = check(" tcp-check send PING\\r\\n\n tcp-check expect string +PONG\n");
    assert!(notes.is_empty(), "{notes:?}");
    let health = &text.parse::<toml::Table>().expect("TOML")["pool"][0]["health"];
    assert_eq!((health["send"].as_str(), health["contains"].as_str()), (Some("PING\r\n"), Some("+PONG")));
    let (text, notes) = check(" tcp-check send A\n tcp-check send B\n tcp-check expect rstring x\n");
    assert_eq!(notes, [1, 6]);
    assert!(text.contains("type = \"tcp\""), "{text}");
}

#[test]
fn an_http_check_keeps_its_path_host_and_status() {
    let (text, notes) = import(
        "listen a
    bind :80
    option httpchk GET /alive
    http-check send hdr Host example.com
    http-check expect status 204
    server a 10.0.0.2:80 check
",
    );
    assert!(notes.is_empty(), "{notes:?}");
    assert!(
        text.contains("type = \"http\"\npath = \"/alive\"\nhost = \"example.com\"\nstatus = 204"),
        "{text}"
    );
}

#[test]
fn checks_over_tls_keep_whom_they_trust_and_whom_they_ask_for() {
    let keys = |section: &str, server: &str| {
        let text = format!(
            "listen in\n bind :80\n {section}\n server s1 10.0.0.1:443 check {server}\n server s2 10.0.0.2:443 check {server}\n"
        );
        let (text, notes) = import(&text);
        assert_eq!(notes, [0_usize; 0], "{text}");
        text.parse::<toml::Table>().expect("TOML")["pool"][0]["health"].clone()
    };
    let cases = [
        ("", "check-ssl verify none", "tls", "verify = \"none\""),
        (
            "",
            "check-ssl verify none check-sni a.test ca-file x.pem",
            "tls",
            "server_name = \"a.test\"\nverify = \"none\"",
        ),
        ("", "check-ssl verify required ca-file /ca.pem", "tls", "verify = \"chain\"\nca_file = \"/ca.pem\""),
        (
            "",
            "check-ssl ca-file @system-ca check-sni a.test",
            "tls",
            "server_name = \"a.test\"\nverify = \"full\"",
        ),
        (
            "",
            "check-ssl verifyhost b.test check-alpn h2,http/1.1",
            "tls",
            "server_name = \"b.test\"\nverify = \"full\"\nalpn = [\"h2\", \"http/1.1\"]",
        ),
        ("option httpchk GET /health", "check-ssl verify none", "https", "verify = \"none\""),
    ];
    for (section, server, kind, expected) in cases {
        let health = keys(section, server);
        assert_eq!(health["type"].as_str(), Some(kind), "{server}");
        let expected: toml::Table = expected.parse().expect("TOML");
        assert_eq!(health["tls"].as_table(), Some(&expected), "{server}");
    }
    let plain = keys("", "verify none no-check-ssl");
    assert_eq!((plain["type"].as_str(), plain.get("tls")), (Some("tcp"), None));
}

#[test]
fn a_server_template_becomes_a_source() {
    let (text, notes) = import(
        "resolvers dns
    nameserver one 127.0.0.1:8600
listen a
    bind :80
    server-template web 5 _web._tcp.service.consul resolvers dns check
    server-template app 1-3 app.local:81
",
    );
    assert_eq!(notes, [6]);
    assert!(
        text.contains(
            "name = \"_web._tcp.service.consul\"\nrecord = \"srv\"\nresolver = [\"127.0.0.1:8600\"]"
        ),
        "{text}"
    );
    assert!(text.contains("name = \"app.local\"\nport = 81"), "{text}");
}

#[test]
fn a_line_that_would_change_its_meaning_is_left_out_and_named() {
    let (text, notes) = import(
        "frontend tls
    bind :443 ssl crt x.pem
    bind :80
    default_backend web
backend web
    server a 10.0.0.2:443 ssl verify none
    server b 10.0.0.3:80 send-proxy-v2-ssl
    server c 10.0.0.4:80
frontend only_rules
    bind :81
    use_backend web if { src 10.0.0.1 }
",
    );
    assert_eq!(notes, [2, 6, 7, 9, 11]);
    assert!(!text.contains("443") && !text.contains("10.0.0.3") && !text.contains("81\""), "{text}");
    assert!(text.contains("10.0.0.4:80"), "{text}");
}

#[test]
fn rules_on_the_name_of_the_server_become_routes_and_others_are_named() {
    let (text, notes) = import(
        "frontend tls
    bind :443
    tcp-request inspect-delay 5s
    tcp-request content accept if { req.ssl_hello_type 1 }
    acl is_b req_ssl_sni -i b.example.com
    acl is_b req.ssl_sni,lower b2.example.com
    acl inside src 10.0.0.0/8
    use_backend a if { req.ssl_sni -i a.example.com A2.example.com }
    use_backend b if is_b or { req.ssl_sni -m end -i .b.example.com }
    use_backend a if { req.ssl_sni -i -m end .example.com } { req.ssl_hello_type 1 }
    use_backend b if { req.ssl_sni -i z.example.com other.test }
    use_backend b if { req.ssl_sni case.test }
    use_backend b if { req.ssl_sni -i -m end example.net }
    use_backend b if { req.ssl_sni -i -m reg ^x }
    use_backend b if inside is_b
    use_backend b unless is_b
    use_backend %[req.ssl_sni] if is_b
    use_backend gone if { req.ssl_sni -i gone.test }
    default_backend a
backend a
    server a 10.0.0.1
backend b
    server b 10.0.0.2
",
    );
    assert_eq!(notes, [7, 11, 12, 13, 14, 15, 16, 17, 18], "{text}");
    let table = text.parse::<toml::Table>().expect("TOML");
    let listener = &table["listener"][0];
    assert_eq!(listener["tls"].as_str(), Some("passthrough"));
    assert_eq!(listener["timeouts"]["preread"].as_str(), Some("5s"));
    let routes: Vec<String> =
        listener["route"].as_array().expect("routes").iter().map(ToString::to_string).collect();
    let route = |names: &str, pool: &str| format!("{{ pool = \"{pool}\", sni = [{names}] }}");
    assert_eq!(
        routes,
        [
            route("\"a.example.com\", \"a2.example.com\"", "a"),
            route("\"b.example.com\", \"b2.example.com\", \"*.b.example.com\"", "b"),
            route("\"*.example.com\"", "a"),
            route("\"other.test\"", "b"),
        ]
    );
    let (text, notes) = import("listen l\n bind :80\n tcp-request inspect-delay 5s\n server a 10.0.0.1\n");
    assert_eq!(notes, [3]);
    assert!(!text.contains("preread"), "{text}");
}

#[test]
fn the_header_of_the_servers_is_that_of_their_pool() {
    let pool = |servers: &str| {
        let (text, notes) = import(&format!("listen l\n bind :80\n{servers}"));
        let pool = text.parse::<toml::Table>().expect("TOML")["pool"][0].clone();
        let header = pool.get("proxy_protocol").map(ToString::to_string).unwrap_or_default();
        (header, pool["backend"].as_array().expect("a list").len(), notes)
    };
    let two = " server a 10.0.0.1:80 check send-proxy\n server b 10.0.0.2:80 check send-proxy\n";
    assert_eq!(pool(two), ("{ version = \"v1\" }".to_owned(), 2, vec![]));
    let of_defaults = " default-server send-proxy-v2 proxy-v2-options crc32c,unique-id check port 81\n\
                       server a 10.0.0.1:80\n server b 10.0.0.2:80 no-send-proxy-v2\n";
    let header = "{ check = \"none\", tlvs = [\"crc32c\", \"unique_id\"], version = \"v2\" }".to_owned();
    assert_eq!(pool(of_defaults), (header, 1, vec![5]));
    let checked = " server a 10.0.0.1:80 send-proxy-v2 check port 81 check-send-proxy proxy-v2-options ssl\n";
    assert_eq!(pool(checked), ("{ version = \"v2\" }".to_owned(), 1, vec![3]));
    assert_eq!(pool(" server a 10.0.0.1:80 check check-send-proxy\n"), (String::new(), 1, vec![3]));
}

#[test]
fn a_listener_that_reads_headers_reads_them_from_everyone_as_before() {
    let (text, notes) = import("listen l\n bind :80 accept-proxy\n server a 10.0.0.1:80\n");
    assert_eq!(notes, [2], "everyone may name any client");
    assert!(text.contains("from = [\"0.0.0.0/0\", \"::/0\"]"), "{text}");
}

#[test]
fn sections_take_the_defaults_in_front_of_them_or_those_they_name() {
    let (text, _) = import(
        "defaults one
    timeout connect 1s
listen a
    bind :80
    server a 10.0.0.1:80
defaults two
    timeout connect 2s
listen b
    bind :81
    server a 10.0.0.1:81
listen c from one
    bind :82
    server a 10.0.0.1:82
",
    );
    let connects: Vec<&str> = text.lines().filter(|line| line.starts_with("connect")).collect();
    assert_eq!(connects, ["connect = \"1s\"", "connect = \"2s\"", "connect = \"1s\""]);
}

#[test]
fn a_variable_stays_a_variable() {
    let (text, notes) = import("listen a\n bind \":${PORT}\"\n server a \"$HOST:80\"\n");
    assert!(notes.is_empty(), "{notes:?}");
    assert!(
        text.contains("bind = \"0.0.0.0:${PORT}\"") && text.contains("address = \"${HOST}:80\""),
        "{text}"
    );
}

#[test]
fn a_note_on_a_line_of_the_defaults_is_written_once() {
    let (_, notes) = import(
        "defaults\n mode http\nlisten a\n bind :80\n server a 10.0.0.1:80\nlisten b\n bind :81\n server a 10.0.0.1:81\n",
    );
    assert_eq!(notes, [2]);
}

#[test]
fn a_file_without_anything_to_translate_is_refused() {
    let imported = haproxy("global\n daemon\ndefaults\n mode http\n", "haproxy.cfg").expect("valid");
    assert!(imported.text.is_none());
}

#[test]
fn a_server_undoes_what_its_defaults_say_and_a_disabled_one_gets_no_sessions() {
    let (text, notes) = import(
        "listen l
    bind :80
    default-server ssl backup disabled
    server a 10.0.0.1:80 no-ssl no-backup enabled
    server b 10.0.0.2:80 no-ssl disabled weight 10
    server c 10.0.0.3:80
",
    );
    assert_eq!(notes, [3, 3, 5, 6]);
    let backends = text.parse::<toml::Table>().expect("TOML")["pool"][0]["backend"].clone();
    let row = |backend: &toml::Value| {
        (backend.get("weight").and_then(toml::Value::as_integer), backend.get("backup").is_some())
    };
    let rows: Vec<_> = backends.as_array().expect("a list").iter().map(row).collect();
    assert_eq!(rows, [(None, false), (Some(0), true)]);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic_and_no_result_is_refused(
        lines in proptest::collection::vec(
            proptest::sample::select(vec![
                "global", "defaults", "frontend f", "backend b", "listen l", "listen l m", " bind :80", " bind :80-90,[::]:1",
                " bind \"${X}\"", " server a 10.0.0.1", " server a/b x.local:80 check enabled no-ssl inter 5 fastinter 1d rise 3",
                " server a x.local:80 check weight 0", " default_backend b", " timeout connect 1", " timeout check 9d",
                " timeout client 1us", " option httpchk", " http-check send hdr Host", " tcp-check expect string \\x00",
                " option tcp-check", " tcp-check send a\\", " server-template t 3 _a._tcp.b", " server-template t 3 x:80",
                " balance random(2)", " retries 99", " retries 3", " maxconn 0", " nbthread 3", " user u", " 'x", " default-server check ssl",
                " server p x.local:81 check port 7 send-proxy-v2 proxy-v2-options crc32c,ssl", " default-server send-proxy",
            ]),
            0..20,
        )
    ) {
        let text = lines.join("\n");
        proptest::prop_assert!(haproxy(&text, "x").is_ok(), "{text}\n{:?}", haproxy(&text, "x"));
    }
}

#[test]
fn a_script_of_sends_and_expectations_becomes_steps() {
    let (text, notes) = import(
        "listen a
    bind :80
    option tcp-check
    tcp-check connect
    tcp-check expect string 220\\ ready
    tcp-check send-binary 00ff0D0a comment hello
    tcp-check expect binary 01
    tcp-check send C:\\\\QUIT\\r\\n
    server a 10.0.0.2:25 check
",
    );
    assert_eq!(notes, [0; 0]);
    let health = &text.parse::<toml::Table>().expect("TOML")["pool"][0]["health"];
    let steps = health["steps"].as_array().expect("steps");
    let of = |step: &toml::Value, key: &str| step.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let steps: Vec<_> = steps.iter().map(|step| (of(step, "send"), of(step, "expect"))).collect();
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        (None, text("220 ready")),
        (text(r"\x00\xff\x0D\x0a"), text(r"\x01")),
        // A backslash of the text is one of an escape in our file.
        (text("C:\\\\QUIT\r\n"), None),
    ];
    assert_eq!((health["type"].as_str(), steps.as_slice()), (Some("tcp"), &expected[..]));
}

#[test]
fn checks_that_know_the_server_are_kept() {
    let check = |option: &str| {
        let lines = format!("listen a\n bind :80\n option {option}\n server a 10.0.0.2:1 check\n");
        let (text, notes) = import(&lines);
        let health = text.parse::<toml::Table>().expect("TOML")["pool"][0]["health"].clone();
        (health.as_table().expect("a table").clone(), notes)
    };
    for (option, kind, key, noted) in [
        ("redis-check", "redis", None, false),
        ("pgsql-check user lb", "postgres", Some(("user", "lb")), false),
        ("mysql-check", "mysql", None, false),
        ("mysql-check user haproxy post-41", "mysql", Some(("user", "haproxy")), false),
        ("smtpchk", "smtp", None, false),
        ("smtpchk EHLO lb.example.com", "smtp", Some(("domain", "lb.example.com")), false),
        ("smtpchk HELO lb.example.com", "smtp", Some(("domain", "lb.example.com")), true),
        ("ldap-check", "tcp", None, true),
    ] {
        let (health, notes) = check(option);
        assert_eq!(health["type"].as_str(), Some(kind), "{option}");
        assert_eq!(notes, if noted { vec![3] } else { Vec::new() }, "{option}");
        if let Some((key, value)) = key {
            assert_eq!(health[key].as_str(), Some(value), "{option}");
        }
    }
}

#[test]
fn agents_of_servers_are_those_of_the_pool() {
    let (text, notes) = import(
        "listen a
    bind :80
    server a 10.0.0.2:1 agent-check agent-port 9707 agent-inter 500ms agent-send hello\\n
    server b 10.0.0.3:1 agent-check agent-port 9707 agent-inter 500ms agent-send hello\\n
    server c 10.0.0.4:1
",
    );
    assert_eq!(notes, [5]);
    let agent = &text.parse::<toml::Table>().expect("TOML")["pool"][0]["agent"];
    assert_eq!((agent["port"].as_integer(), agent["send"].as_str()), (Some(9707), Some("hello\n")));
    assert_eq!(agent["interval"].as_str(), Some("500ms"));
}

#[test]
fn a_log_of_this_machine_is_one_for_its_syslog_daemon() {
    let log = |lines: &str| {
        let (text, notes) = import(&format!(
            "global\n{lines}defaults\n log global\n option tcplog\nlisten a\n bind :80\n server a 10.0.0.2:1\n"
        ));
        let text = text.parse::<toml::Table>().expect("TOML");
        (text.get("global").map(|global| global["log"].to_string()), notes)
    };
    let (written, notes) = log(" log /dev/log local3 notice\n log 127.0.0.1 local0\n");
    assert_eq!(notes, [3]);
    let written = written.expect("a log");
    let has = |word: &str| written.contains(word);
    assert!(has("syslog") && has("local3") && has("\"local\"") && !has("socket"), "{written}");
    let (written, notes) = log(" log /run/log len 4096 format rfc5424 daemon\n");
    assert!(notes.is_empty() && written.as_ref().is_some_and(|log| log.contains("/run/log")), "{written:?}");
    assert_eq!(log(" log 10.0.0.1:514 local0\n"), (None, vec![2]));
}
