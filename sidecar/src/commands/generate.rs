//! `--generate-config`: a configuration for a PostgreSQL that runs already, read from the server itself.

use std::collections::BTreeMap;

use anyhow::Context;
use matriarch_ha::config::CLUSTER_WIDE;
use serde_json::{Map, Value, json};
use tokio_postgres::{Client, Config, NoTls};

/// What is to be filled in by hand.
const FILL_IN: &str = "#FIXME";
/// Ours, or this member's own: not the cluster's parameters.
const NOT_PARAMETERS: [&str; 12] = [
    "listen_addresses",
    "port",
    "cluster_name",
    "hot_standby",
    "wal_log_hints",
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "unix_socket_directories",
    "synchronous_standby_names",
];
/// Where others reach a server that listens everywhere.
const ADDRESS: &str = "SELECT coalesce(host(inet_server_addr()), '')";

/// Reads the server at `dsn` (libpq's words or a URL; empty: by PGHOST and its kin, else the local socket) and returns YAML.
pub async fn from_server(dsn: &str) -> anyhow::Result<String> {
    let config = target(dsn)?;
    let user = config.get_user().unwrap_or("postgres").to_owned();
    let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
    let (client, connection) = config.connect(NoTls).await.with_context(|| {
        "PostgreSQL cannot be reached: write --dsn 'host=… port=… user=… password=…', as a superuser".to_owned()
    })?;
    tokio::spawn(connection);
    let document = read(&client, &user, password.as_deref().unwrap_or(FILL_IN)).await?;
    Ok(serde_saphyr::to_string(&document)?)
}

fn target(dsn: &str) -> anyhow::Result<Config> {
    let mut config: Config =
        dsn.parse().with_context(|| format!("{dsn:?} is no connection string: write host=… port=… user=…"))?;
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if config.get_hosts().is_empty() {
        match env("PGHOST") {
            Some(host) => config.host(host),
            None => config.host("/var/run/postgresql"),
        };
    }
    if config.get_ports().is_empty()
        && let Some(port) = env("PGPORT").and_then(|port| port.parse().ok())
    {
        config.port(port);
    }
    if config.get_user().is_none() {
        config.user(env("PGUSER").unwrap_or_else(|| "postgres".to_owned()));
    }
    if config.get_password().is_none()
        && let Some(password) = env("PGPASSWORD")
    {
        config.password(password);
    }
    if config.get_dbname().is_none() {
        config.dbname(env("PGDATABASE").unwrap_or_else(|| "postgres".to_owned()));
    }
    config.application_name("matriarch").connect_timeout(std::time::Duration::from_secs(5));
    Ok(config)
}

async fn read(client: &Client, user: &str, password: &str) -> anyhow::Result<Value> {
    let rows = client
        .query(
            "SELECT name, current_setting(name), source IN ('configuration file', 'command line'), context
               FROM pg_catalog.pg_settings",
            &[],
        )
        .await
        .context("pg_settings cannot be read")?;
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut parameters = Map::new();
    for row in rows {
        let (name, value, set, context): (String, String, bool, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        if set && context != "internal" && !NOT_PARAMETERS.contains(&name.as_str()) && !name.starts_with("recovery_") {
            parameters.insert(name.clone(), value.clone().into());
        }
        all.insert(name, value);
    }
    // Of which all members must agree, also at their defaults; how much WAL is kept may differ.
    for name in CLUSTER_WIDE.into_iter().filter(|name| !name.starts_with("wal_keep")) {
        if let Some(value) = all.get(name) {
            parameters.insert(name.to_owned(), value.clone().into());
        }
    }
    for name in ["primary_conninfo", "primary_slot_name", "restore_command", "archive_cleanup_command"] {
        parameters.remove(name);
    }
    let get = |name: &str| all.get(name).cloned().unwrap_or_default();
    let listen = if get("listen_addresses").is_empty() { "localhost".to_owned() } else { get("listen_addresses") };
    let address: String = client.query_one(ADDRESS, &[]).await?.try_get(0)?;
    let address = if address.is_empty() { FILL_IN.to_owned() } else { address };
    let (port, scope) = (get("port"), get("cluster_name"));
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let mut postgresql = json!({
        "listen": format!("{listen}:{port}"),
        "connect_address": format!("{address}:{port}"),
        "data_dir": get("data_directory"),
        "authentication": {
            "superuser": {"username": user, "password": password},
            "replication": {"username": "replicator", "password": FILL_IN},
        },
        "parameters": {"unix_socket_directories": get("unix_socket_directories")},
    });
    for (key, setting) in [("pg_hba", "hba_file"), ("pg_ident", "ident_file")] {
        let lines = lines(client, &get(setting)).await?;
        if !lines.is_empty() {
            postgresql[key] = lines.into();
        }
    }
    Ok(json!({
        "scope": if scope.is_empty() { FILL_IN } else { &scope },
        "name": name,
        "kubernetes": {"namespace": "default", "labels": {"application": "patroni"}},
        "restapi": {"listen": format!("{address}:8008"), "connect_address": format!("{address}:8008")},
        "bootstrap": {"dcs": {
            "ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": 1_048_576,
            "postgresql": {"use_pg_rewind": true, "use_slots": true, "parameters": parameters},
        }},
        "postgresql": postgresql,
        "tags": {"nofailover": false, "noloadbalance": false, "clonefrom": false, "nosync": false},
    }))
}

/// The lines of a file of the server that say something.
async fn lines(client: &Client, path: &str) -> anyhow::Result<Vec<String>> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let row = client
        .query_one("SELECT pg_catalog.pg_read_file($1)", &[&path])
        .await
        .with_context(|| format!("{path} cannot be read: log in as a superuser"))?;
    let text: String = row.try_get(0)?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}
