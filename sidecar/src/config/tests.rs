//! The operator's file, Patroni's files, and what is said about bad ones.

use super::*;

const FULL: &str = r#"
scope: orders
kubernetes: {labels: {application: matriarch}, scope_label: cluster-name, role_label: role, use_endpoints: false, ports: [{name: postgresql, port: 5432}]}
restapi: {listen: "0.0.0.0:8008", certfile: /etc/matriarch/tls/tls.crt, keyfile: /etc/matriarch/tls/tls.key, cafile: /etc/matriarch/tls/ca.crt, verify_client: optional}
bootstrap:
  dcs: {ttl: 10, loop_wait: 2, retry_timeout: 3, postgresql: {use_slots: true, parameters: {max_connections: 100}, pg_hba: ["host all all all scram-sha-256"]}}
  initdb: [data-checksums, {encoding: UTF8}, {locale: C.UTF-8}]
  method: initdb
tags: {nofailover: false, failover_priority: 2, zone: a}
postgresql: {listen: "*:5432", data_dir: /var/lib/matriarch/pgdata, authentication: {}}
matriarch: {service: orders, slice: orders-primary, pods_service: orders-pods, secrets_dir: /etc/matriarch/secrets}
unknown: {key: is fine}
"#;

/// As in Patroni's samples, outside of pods.
const PATRONI: &str = r"
scope: orders
name: orders-1
kubernetes:
  namespace: shop
  labels: {application: patroni}
  use_endpoints: off
  context: kind-kind
restapi:
  listen: 127.0.0.1:8009
  connect_address: 10.0.0.2:8009
bootstrap:
  dcs: {ttl: 30}
  initdb:
  - encoding: UTF8
  - data-checksums
postgresql:
  listen: 0.0.0.0:5433
  connect_address: db.example:5433
  data_dir: /nonexistent/orders1
  pgpass: /tmp/pgpass1
  use_unix_socket: true
  authentication:
    superuser: {username: postgres, password: zalando}
    replication: {username: replicator, password: 1234}
  parameters: {unix_socket_directories: '.., /run/orders', max_connections: 50, hot_standby: on}
tags: {nofailover: false, failover_priority: 2}
";

fn env(name: &str) -> Option<String> {
    Some(match name {
        "POD_NAME" => "orders-0".into(),
        "POD_NAMESPACE" => "shop".into(),
        "POD_IP" => "10.0.0.1".into(),
        "POD_UID" => "u-1".into(),
        _ => return None,
    })
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("patroni.yml"), text, env).map_err(|error| error.to_string())
}

fn outside(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("patroni.yml"), text, |_| None).map_err(|error| error.to_string())
}

#[test]
fn the_operators_file_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.scope, "orders");
    assert_eq!(config.initdb, ["--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8"]);
    assert_eq!(config.bootstrap_dcs["ttl"], 10);
    assert_eq!(config.bootstrap_dcs["postgresql"]["parameters"]["max_connections"], 100);
    assert_eq!((config.postgres.listen_addresses.as_str(), config.postgres.port), ("*", 5432));
    assert_eq!(config.api.to_string(), "orders-0.orders-pods.shop.svc:8008");
    assert_eq!(config.postgres.connect.to_string(), "orders-0.orders-pods.shop.svc:5432");
    assert_eq!(config.restapi.verify_client, VerifyClient::Optional);
    assert_eq!(config.tags.failover_priority, 2);
    assert_eq!(config.tags.published["zone"], "a");
    assert_eq!(config.labels().len(), 2);
    assert!(!config.own_supervisor);
}

#[test]
fn little_is_enough_in_a_pod() {
    let config = parse("scope: a").unwrap();
    assert_eq!(config.matriarch.slice.as_deref(), Some("a-primary"));
    assert_eq!(config.postgres.data_dir, Path::new("/var/lib/matriarch/pgdata"));
    assert_eq!(config.kubernetes.ports.len(), 1);
}

#[test]
fn patronis_file_is_read_outside_of_pods() {
    let config = outside(PATRONI).unwrap();
    assert!(config.own_supervisor && config.pod.uid.is_empty());
    assert_eq!((config.pod.name.as_str(), config.pod.namespace.as_str()), ("orders-1", "shop"));
    assert_eq!((config.pod.ip.as_str(), config.kubernetes.use_endpoints), ("", false));
    assert_eq!(config.kubernetes.context.as_deref(), Some("kind-kind"));
    assert_eq!(
        (config.api.to_string(), config.postgres.connect.to_string()),
        ("10.0.0.2:8009".into(), "db.example:5433".into())
    );
    assert_eq!(config.local["parameters"]["max_connections"], 50);
    assert_eq!(config.matriarch.postgres_socket_dir, Path::new("/run/orders"));
    // Beside the data directory, so that members that share a folder do not meet.
    assert_eq!(config.matriarch.supervisor_socket, Path::new("/nonexistent/orders1.matriarch/supervisor.sock"));
    assert_eq!(config.matriarch.volume, Path::new("/nonexistent"));
    assert_eq!(config.matriarch.slice, None);
    assert!(!config.local.to_string().contains("zalando"), "passwords stay where they are: {}", config.local);
    assert_eq!(config.local["parameters"]["max_connections"], 50);
    assert_eq!(config.tags.failover_priority, 2);
    let credentials = |user| config.credentials(user).unwrap();
    assert_eq!(credentials(User::Replication).password, "1234");
    assert_eq!(credentials(User::Rewind), credentials(User::Superuser));
    assert!(config.credentials(User::App).is_err());
}

#[test]
fn errors_say_what_to_write() {
    assert!(parse("{}").unwrap_err().contains("`scope: orders`"));
    assert!(parse("scope: a\npostgresql: {listen: here}").unwrap_err().contains("such as"));
    assert!(parse("scope: a\npostgresql: {data_dir: pgdata}").unwrap_err().contains("/var/lib/matriarch/pgdata"));
    assert!(parse("scope: a\nbootstrap: {initdb: [{pwfile: x}]}").unwrap_err().contains("remove it"));
    assert!(parse("scope: [").unwrap_err().contains("patroni.yml"));
    assert!(parse("scope: a\nbootstrap: {dcs: 5}").unwrap_err().starts_with("bootstrap.dcs: is no mapping"));
    assert!(parse("scope: a\nkubernetes: {labels: 3}").unwrap_err().starts_with("kubernetes: "));
    let only_uid = |name: &str| (name == "POD_UID").then(|| "u".to_owned());
    let error = Config::parse(Path::new("x"), "scope: a", only_uid).unwrap_err().to_string();
    assert!(error.contains("POD_NAME") && error.contains("downward API"), "{error}");
    for (without, said) in [
        ("name: orders-1", "PATRONI_NAME"),
        ("  data_dir: /nonexistent/orders1", "postgresql.data_dir"),
        ("  connect_address: db.example:5433", "where standbys reach"),
        ("    replication: {username: replicator, password: 1234}", "postgresql.authentication.replication"),
    ] {
        let error = outside(&PATRONI.replace(without, "")).unwrap_err();
        assert!(error.contains(said), "{without}: {error}");
    }
    let with = |names: &str| PATRONI.replace("  pgpass:", &format!("  bin_name: {names}\n  pgpass:"));
    let config = outside(&with("{initdb: initdb-17}")).unwrap();
    assert_eq!(config.postgres.bin_names["initdb"], "initdb-17");
    for (names, said) in [("{psql: a}", "write one of pg_ctl"), ("{initdb: /bin/sh}", "without a folder")] {
        let error = outside(&with(names)).unwrap_err();
        assert!(error.contains(said), "{names}: {error}");
    }
    let long = outside(&PATRONI.replace("/nonexistent/", &format!("/{}/", "x".repeat(100)))).unwrap_err();
    assert!(long.contains("matriarch.supervisor_socket"), "{long}");
}
