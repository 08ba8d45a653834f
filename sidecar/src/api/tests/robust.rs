//! Whatever comes in: no panic, a clear refusal, and the core is not asked.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::contract::Node;
use super::states::state;
use super::*;
use crate::api::commands::{Command, request};
use crate::api::read;

const COMMANDS: [Command; 14] = [
    Command::Switchover,
    Command::CancelSwitchover,
    Command::Restart,
    Command::CancelRestart,
    Command::Reinitialize,
    Command::Failover,
    Command::Election,
    Command::Failsafe,
    Command::PatchConfig,
    Command::ReplaceConfig,
    Command::Reload,
    Command::Sigterm,
    Command::Citus,
    Command::Mpp,
];

/// Keys that somebody looks at, and others.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("leader"),
        Just("candidate"),
        Just("member"),
        Just("scheduled_at"),
        Just("schedule"),
        Just("role"),
        Just("postgres_version"),
        Just("timeout"),
        Just("restart_pending"),
        Just("force"),
        Just("from_leader"),
        Just("name"),
        Just("matriarch"),
        Just("ttl_ms"),
        Just("pause"),
    ]
    .prop_map(str::to_owned)
    .boxed()
    .prop_union(".{0,12}".boxed())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[0-9.:+TZ -]{0,30}".prop_map(Value::from),
        "[0-9.]{0,25}(ms|s|min|h|d|kB)?".prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((key(), inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    vec((key(), value()), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bodies_of_any_shape_are_understood_or_refused(
        body in prop_oneof![
            vec(any::<u8>(), 0..64),
            value().prop_map(|value| value.to_string().into_bytes()),
            object().prop_map(|value| value.to_string().into_bytes()),
        ],
        command in 0..COMMANDS.len(),
        paused in any::<bool>(),
    ) {
        let (view, site, _) = state(if paused { "primary+paused" } else { "primary" }, NOW.boot);
        let command = COMMANDS[command];
        let object = serde_json::from_slice::<serde_json::Map<String, Value>>(&body).ok();
        let usable = match object {
            Some(object) => !object.is_empty() || command.body_is_optional(),
            None => body.is_empty() && command.body_is_optional(),
        };
        match request(&Seen { view: &view, now: NOW, site: &site }, command, &body) {
            Ok(_) => prop_assert!(usable || !command.has_body(), "{command:?} from {body:?}"),
            Err(answer) => prop_assert!((400..=501).contains(&answer.code) || !usable || answer.code < 300, "{answer:?}"),
        }
    }

    #[test]
    fn paths_and_queries_of_any_shape_are_answered(
        path in prop_oneof![
            ".{0,30}",
            "/(primary|replica|leader|read-only|sync|quorum|readiness|liveness|cluster|metrics|config|history)(/.{0,5})?",
        ],
        query in prop_oneof![".{0,60}", "(lag|tag_[a-z]{0,3}|mode|replication_state)=[0-9a-zA-Z.%-]{0,30}(&lag=.{0,20})?"],
        node in prop_oneof![Just("primary"), Just("standby"), Just("standby+mute"), Just("standby+deaf+paused")],
    ) {
        let (view, site, _) = state(node, NOW.boot);
        let seen = Seen { view: &view, now: NOW, site: &site };
        let query = crate::api::query::parse(&query);
        for answer in [read::response(&seen, &path, &query), read::status_only(&seen, &path, &query)] {
            prop_assert!(matches!(answer.code, 200 | 502 | 503), "{path} {query:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn evil_requests_are_refused_and_nobody_else_notices() {
    let node = Node::new("primary").await;
    let post =
        |path: &str, rest: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{rest}").into_bytes();
    let with = |path: &str, body: &[u8]| {
        let mut request = post(path, &format!("Content-Length: {}\r\n\r\n", body.len()));
        request.extend_from_slice(body);
        request
    };
    let deep = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)).into_bytes();
    let headers = (0..200).map(|n| format!("X-{n}: y\r\n")).collect::<Vec<_>>().concat();
    for (what, request, code) in [
        ("wrong UTF-8", with("/switchover", b"{\"leader\":\"\xff\xfe\"}"), 400),
        ("a NUL", with("/switchover", b"{\"leader\":\"a\0\"}"), 400),
        ("deep JSON", with("/restart", &deep(5_000)), 400),
        ("deep JSON that fits", with("/restart", &deep(100)), 400),
        ("a huge number", with("/restart", b"{\"timeout\":1e999}"), 400),
        ("another one", with("/restart", b"{\"timeout\":99999999999999999999999999}"), 400),
        ("too long", post("/switchover", "Content-Length: 70000\r\n\r\n"), 413),
        ("far too long", post("/switchover", "Content-Length: 99999999999999999999999\r\n\r\n"), 400),
        ("a negative length", post("/switchover", "Content-Length: -1\r\n\r\n"), 400),
        ("two lengths", post("/switchover", "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), 400),
        ("chunks", post("/switchover", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 411),
        ("chunks where a body is optional", post("/restart", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 411),
        ("long headers", post("/restart", &format!("X: {}\r\n\r\n", "y".repeat(20_000))), 431),
        ("many headers", post("/restart", &format!("{headers}\r\n")), 431),
        ("a long path", format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9_000)).into_bytes(), 431),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        ("no method", b" / HTTP/1.1\r\n\r\n".to_vec(), 400),
    ] {
        let answer = node.raw(&request).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{what}: {answer}");
    }
    assert_eq!(node.asked.lock().unwrap().len(), 0);
    assert!(node.send("GET /primary", "-").await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn slow_clients_are_given_up() {
    let node = Node::new("primary+impatient").await;
    let post = "POST /switchover HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    for (what, sent, code) in [
        ("a head without an end", post.to_owned(), None),
        ("nothing", String::new(), None),
        ("a body that does not come", format!("{post}Content-Length: 20\r\n\r\n"), Some("408")),
        ("half a body", format!("{post}Content-Length: 20\r\n\r\n{{\"leader\""), Some("408")),
    ] {
        let begun = Instant::now();
        let answer = node.raw(sent.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.split(' ').nth(1), code, "{what}: {answer}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
    }
    // One header every now and then, for ever.
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(post.as_bytes()).await.unwrap();
    let dripping = async {
        while stream.write_all(b"X: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), dripping).await.unwrap();
    // One who asks for much and reads nothing.
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let _ = stream.write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000).as_bytes()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut end = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut end)).await.unwrap();
    assert_eq!(node.asked.lock().unwrap().len(), 0);
    assert!(node.send("GET /primary", "-").await.0.starts_with("HTTP/1.1 200 "));
}
