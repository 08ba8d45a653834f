//! The text of postgresql.conf, `pg_hba.conf` and the passfile, made whole from a [`ServerConfig`]. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use matriarch_crds::cluster::CONTROLLED_PARAMETERS;
use matriarch_ha::effect::{ServerConfig, Upstream};
use matriarch_ha::event::Pending;

use crate::config::{Config, Credentials};

/// Who writes the files.
pub const HEADER: &str = "\
# Written by Matriarch. Do not edit: it is written anew at every change.
# Set parameters in the PostgresCluster, or by `patronictl edit-config`.
";

/// Used unless the configuration says otherwise. Those that members must agree on are written always, whatever the file says
/// that a cluster brought along.
const DEFAULTS: [(&str, &str); 12] = [
    ("wal_level", "replica"),
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
    ("max_replication_slots", "10"),
    ("track_commit_timestamp", "off"),
    ("wal_keep_size", "128MB"),
    // A broken stream is noticed and tried anew within seconds: failover and re-following wait for it.
    ("wal_receiver_timeout", "5s"),
    ("wal_sender_timeout", "5s"),
    ("wal_retrieve_retry_interval", "100ms"),
];

/// The same, where no postgresql.conf was there before us.
const WEAK_DEFAULTS: [(&str, &str); 3] =
    [("password_encryption", "scram-sha-256"), ("log_line_prefix", "%m [%p] %q%u@%d "), ("tcp_keepalives_idle", "60")];

/// Whether a parameter is Matriarch's: the configuration can never set it.
pub fn controlled(name: &str) -> bool {
    CONTROLLED_PARAMETERS.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// Parameters of which a standby must have at least what its primary had, and their names in `pg_controldata`.
pub const RAISED: [(&str, &str, u64); 5] = [
    ("max_connections", "max_connections setting", 100),
    ("max_worker_processes", "max_worker_processes setting", 8),
    ("max_wal_senders", "max_wal_senders setting", 10),
    ("max_prepared_transactions", "max_prepared_xacts setting", 0),
    ("max_locks_per_transaction", "max_locks_per_xact setting", 64),
];

/// Where the files of one server are and how it is reached.
#[derive(Debug, Clone)]
pub struct Place {
    /// PGDATA.
    pub data_dir: PathBuf,
    /// Where the WAL of a new PGDATA is; none: in it.
    pub wal_dir: Option<PathBuf>,
    /// Where files beside PGDATA are.
    state_dir: PathBuf,
    socket_dir: PathBuf,
    listen_addresses: String,
    port: u16,
    cluster: String,
    member: String,
    /// The superuser's database.
    database: String,
    /// Where the configuration files are: PGDATA, unless configured otherwise.
    config_dir: PathBuf,
    /// `postgresql`, of postgresql.conf.
    base_name: String,
    /// Included instead of what a cluster brought along.
    custom_conf: Option<PathBuf>,
    /// `krbsrvname` of standbys.
    krbsrvname: Option<String>,
}

impl Place {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        Self {
            data_dir: config.postgres.data_dir.clone(),
            wal_dir: config.matriarch.wal_dir.clone(),
            state_dir: config.matriarch.state_dir.clone(),
            socket_dir: config.matriarch.postgres_socket_dir.clone(),
            listen_addresses: config.postgres.listen_addresses.clone(),
            port: config.postgres.port,
            cluster: config.scope.clone(),
            member: config.pod.name.clone(),
            database: config.postgres.database.clone(),
            config_dir: config.postgres.config_dir.clone(),
            base_name: config.postgres.config_base_name.clone(),
            custom_conf: config.postgres.custom_conf.clone(),
            krbsrvname: config.postgres.krbsrvname.clone(),
        }
    }
    /// A file or folder beside PGDATA, such as `pgdata.new`.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.data_dir.clone().into_os_string();
        path.push(suffix);
        path.into()
    }
    /// postgresql.conf
    pub fn conf(&self) -> PathBuf {
        self.config_dir.join(format!("{}.conf", self.base_name))
    }
    /// What postgresql.conf was before it became ours.
    pub fn base_conf(&self) -> PathBuf {
        self.config_dir.join(format!("{}.base.conf", self.base_name))
    }
    /// `pg_hba.conf`
    pub fn hba(&self) -> PathBuf {
        self.config_dir.join("pg_hba.conf")
    }
    /// `pg_ident.conf`
    pub fn ident(&self) -> PathBuf {
        self.config_dir.join("pg_ident.conf")
    }
    /// PostgreSQL would not look for its configuration there.
    pub fn elsewhere(&self) -> bool {
        self.conf() != self.data_dir.join("postgresql.conf")
    }
    /// postgresql.auto.conf
    pub fn auto_conf(&self) -> PathBuf {
        self.data_dir.join("postgresql.auto.conf")
    }
    /// postmaster.pid
    pub fn pid_file(&self) -> PathBuf {
        self.data_dir.join("postmaster.pid")
    }
    /// standby.signal
    pub fn standby_signal(&self) -> PathBuf {
        self.data_dir.join("standby.signal")
    }
    /// There as long as a `pg_rewind` has not ended well: what is in PGDATA then is of no use.
    pub fn rewinding(&self) -> PathBuf {
        self.beside(".rewinding")
    }
    /// Logical slots that were copied and are not proven.
    pub fn copied_slots(&self) -> PathBuf {
        self.beside(".copied-slots")
    }
    /// There as long as what is in PGDATA is the unfinished work of a copy or a bootstrap.
    pub fn partial(&self) -> PathBuf {
        self.beside(".partial")
    }
    /// There while a cluster is made from a custom bootstrap, until its roles are ours.
    pub fn bootstrap(&self) -> PathBuf {
        self.beside(".bootstrap")
    }
    /// Passwords of the superuser, for a script that runs once.
    pub fn superuser_passfile(&self) -> PathBuf {
        self.state_dir.join("conf/pgpass.bootstrap")
    }
    /// The password for the server that a new cluster is cloned from.
    pub fn clone_passfile(&self) -> PathBuf {
        self.state_dir.join("conf/pgpass.clone")
    }
    /// There when the SQL of the bootstrap has run.
    pub fn post_init(&self) -> PathBuf {
        self.beside(".post-init")
    }
    /// Passwords for the WAL receiver, `pg_basebackup` and `pg_rewind`.
    pub fn passfile(&self) -> PathBuf {
        self.state_dir.join("conf/pgpass")
    }
    /// Where parameters are tried.
    pub fn candidate(&self) -> PathBuf {
        self.state_dir.join("conf/candidate.conf")
    }
    /// One of `tls.crt`, `tls.key`, `ca.crt`, for PostgreSQL.
    pub fn tls(&self, name: &str) -> PathBuf {
        self.state_dir.join("tls").join(name)
    }
    /// How a program in PostgreSQL's container reaches its server.
    pub fn url(&self, user: &str) -> String {
        let host = percent(&text(&self.socket_dir));
        format!("postgres://{}@{host}:{}/{}", percent(user), self.port, percent(&self.database))
    }
    /// Arguments of the postmaster: what no reload may change and no ALTER SYSTEM may override, and `more`.
    pub fn arguments(&self, more: &[(String, String)]) -> Vec<String> {
        let mut fixed = self.fixed();
        if self.elsewhere() {
            fixed.insert("config_file", text(&self.conf()));
        }
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value));
        fixed.chain(more.iter().cloned()).flat_map(|(n, v)| ["-c".to_owned(), format!("{n}={v}")]).collect()
    }
    fn fixed(&self) -> BTreeMap<&'static str, String> {
        let mut fixed = BTreeMap::from([
            ("cluster_name", self.cluster.clone()),
            ("hba_file", text(&self.hba())),
            ("hot_standby", "on".to_owned()),
            ("ident_file", text(&self.ident())),
            ("listen_addresses", self.listen_addresses.clone()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", text(&self.socket_dir)),
            ("wal_log_hints", "on".to_owned()),
        ]);
        if self.elsewhere() {
            fixed.insert("data_directory", text(&self.data_dir));
        }
        fixed
    }
}

/// For a part of a URL.
pub fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What a configuration depends on besides [`ServerConfig`].
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The replication role.
    pub replication: &'a Credentials,
    /// The certificates are in place.
    pub tls: bool,
    /// PostgreSQL's major version, where it is known.
    pub major: Option<u32>,
    /// The directory was Patroni's, with a postgresql.base.conf.
    pub base: bool,
}

/// postgresql.conf.
pub fn postgresql_conf(place: &Place, config: &ServerConfig, given: Given) -> String {
    let Given { replication, tls, major, base } = given;
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        all.insert(name.to_owned(), value.to_owned());
    };
    for (name, value) in
        DEFAULTS.into_iter().chain(WEAK_DEFAULTS.into_iter().filter(|_| !base && place.custom_conf.is_none()))
    {
        set(name, value);
    }
    if major.is_some_and(|major| major >= 14) {
        // After a crash PostgreSQL syncs its whole directory before it recovers: file by file that takes a second for an empty
        // database and minutes for a large one.
        set("recovery_init_sync_method", "syncfs");
    }
    if tls {
        set("ssl", "on");
        set("ssl_cert_file", &text(&place.tls("tls.crt")));
        set("ssl_key_file", &text(&place.tls("tls.key")));
        set("ssl_ca_file", &text(&place.tls("ca.crt")));
    }
    for (name, value) in &config.parameters {
        let name = name.to_ascii_lowercase();
        if !controlled(&name) {
            set(&name, value);
        }
    }
    for (name, value) in place.fixed() {
        set(name, &value);
    }
    for (name, value) in &config.recovery {
        set(name, value);
    }
    set("synchronous_standby_names", &config.sync_names);
    set("recovery_target_timeline", "latest");
    // Said in any case: what is included may say otherwise.
    let upstream = config.upstream.as_ref();
    set("primary_conninfo", &upstream.map(|up| primary_conninfo(place, up, replication)).unwrap_or_default());
    set("primary_slot_name", upstream.and_then(|up| up.slot.as_deref()).unwrap_or_default());
    let included = place.custom_conf.clone().or_else(|| base.then(|| place.base_conf()));
    let Some(included) = included else { return lines(&all) };
    // What is written there is older than the cluster, and wins over defaults only.
    let weak = WEAK_DEFAULTS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let include = guc_quote(&text(&included));
    format!("{HEADER}{}include_if_exists {include}\n{}", assignments(&weak), assignments(&all))
}

/// `pg_ident.conf`; none configured: no maps.
pub fn pg_ident_conf(config: &ServerConfig) -> String {
    let mut out = HEADER.to_owned();
    for line in &config.pg_ident {
        // One line each, whatever was written.
        out.push_str(&line.replace(['\n', '\r'], " "));
        out.push('\n');
    }
    out
}

/// Parameters as a file.
pub fn lines(parameters: &BTreeMap<String, String>) -> String {
    format!("{HEADER}{}", assignments(parameters))
}

/// Parameters as lines of a file.
pub fn assignments(parameters: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for (name, value) in parameters {
        out.push_str(name);
        out.push_str(" = ");
        out.push_str(&guc_quote(value));
        out.push('\n');
    }
    out
}

/// `primary_conninfo`, exactly as PostgreSQL will show it.
pub fn primary_conninfo(place: &Place, upstream: &Upstream, replication: &Credentials) -> String {
    let mut more = vec![("user", replication.username.as_str()), ("application_name", &place.member)];
    more.extend(replication.options.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if let Some(name) = &place.krbsrvname {
        more.push(("krbsrvname", name));
    }
    conninfo(place, upstream, &more)
}

/// How a tool or the WAL receiver reaches `upstream`; `more` are keywords and values.
pub fn conninfo(place: &Place, upstream: &Upstream, more: &[(&str, &str)]) -> String {
    let port = upstream.port.to_string();
    let passfile = text(&place.passfile());
    let mut pairs = vec![("host", upstream.host.as_str())];
    if !upstream.ip.is_empty() {
        pairs.push(("hostaddr", upstream.ip.as_str()));
    }
    pairs.push(("port", &port));
    pairs.extend_from_slice(more);
    pairs.extend([("passfile", passfile.as_str()), ("connect_timeout", "5")]);
    if !more.iter().any(|(name, _)| *name == "sslmode") {
        pairs.push(("sslmode", "prefer"));
    }
    // A primary that is gone without a word is noticed: unacknowledged for 5 s, or silent through three probes.
    pairs.extend([
        ("tcp_user_timeout", "5000"),
        ("keepalives_idle", "2"),
        ("keepalives_interval", "1"),
        ("keepalives_count", "3"),
    ]);
    self::pairs(&pairs)
}

/// libpq's keywords and values.
pub fn pairs(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={}", conninfo_quote(value))).collect::<Vec<_>>().join(" ")
}

/// The URL of `upstream` for a command, without a password; `hostaddr` spares it the look-up of a name.
pub fn upstream_url(upstream: &Upstream, user: &str) -> String {
    let address = if upstream.ip.is_empty() { String::new() } else { format!("?hostaddr={}", percent(&upstream.ip)) };
    format!("postgres://{}@{}:{}/postgres{address}", percent(user), upstream.host, upstream.port)
}

/// A value of libpq's connection strings.
fn conninfo_quote(value: &str) -> String {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte)) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A value in postgresql.conf: quotes are doubled, backslashes escape there.
pub fn guc_quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n").replace('\r', "\\r"))
}

/// The roles that `pg_hba.conf` names.
#[derive(Debug, Clone)]
pub struct Roles<'a> {
    /// The agent itself.
    pub superuser: &'a str,
    /// Standbys.
    pub replication: &'a str,
    /// `pg_rewind`.
    pub rewind: &'a str,
    /// To which it connects.
    pub database: &'a str,
    /// The superuser's password is not known yet: a custom bootstrap brought another. Only the pod's containers reach the socket.
    pub trust_superuser: bool,
    /// Their passwords may be stored as MD5 hashes: an older cluster is taken over. Those that are not are asked for by SCRAM then too.
    pub md5: bool,
}

/// `pg_hba.conf`: first the few lines without which a cluster cannot run, then the configuration's. Only where it has none does
/// everybody with a password get in, so that `hostssl …` alone means TLS only.
pub fn pg_hba_conf(config: &ServerConfig, roles: &Roles) -> String {
    let (superuser, replication, rewind) =
        (hba_quote(roles.superuser), hba_quote(roles.replication), hba_quote(roles.rewind));
    let database = hba_quote(roles.database);
    let password = if roles.md5 { "md5" } else { "scram-sha-256" };
    let method = if roles.trust_superuser { "trust" } else { password };
    let mut out = format!(
        "{HEADER}
local all {superuser} {method}
host replication {replication} all {password}
local {database} {rewind} {password}
host {database} {rewind} all {password}

"
    );
    if config.pg_hba.is_empty() {
        out.push_str("local all all scram-sha-256\nhost all all all scram-sha-256\n");
    }
    for line in &config.pg_hba {
        // One line each, whatever was written: a line break would be another rule.
        out.push_str(&line.replace(['\n', '\r'], " "));
        out.push('\n');
    }
    out
}

pub(super) fn hba_quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// libpq's passfile.
pub fn passfile(who: &[&Credentials]) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let lines = who.iter().map(|one| ["*:*:*:", &escape(&one.username), ":", &escape(&one.password), "\n"].concat());
    lines.collect()
}

/// postgresql.auto.conf without what is Matriarch's (it wins over postgresql.conf); none: nothing to remove.
pub fn cleaned_auto_conf(content: &str) -> Option<String> {
    let ours = |line: &str| controlled(line.split(['=', ' ', '\t']).next().unwrap_or_default().trim());
    content
        .lines()
        .any(ours)
        .then(|| content.lines().filter(|line| !ours(line)).flat_map(|line| [line, "\n"]).collect())
}

/// Raises what a standby needs as much of as its primary had.
pub fn raise(parameters: &mut BTreeMap<String, String>, control: &BTreeMap<String, u64>) {
    for (name, key, default) in RAISED {
        let Some(&needed) = control.get(key) else { continue };
        if number(parameters, name, default).is_some_and(|wanted| wanted < needed) {
            parameters.insert(name.to_owned(), needed.to_string());
        }
    }
}

/// A primary starts with no more than its standbys have that still wait for a restart; never with less than it had.
pub fn hold(
    parameters: &mut BTreeMap<String, String>,
    limits: &BTreeMap<String, u64>,
    control: &BTreeMap<String, u64>,
) {
    for (name, key, default) in RAISED {
        let Some(limit) = limits.get(name) else { continue };
        let most = control.get(key).copied().unwrap_or(default).max(*limit);
        if number(parameters, name, default).is_some_and(|wanted| wanted > most) {
            parameters.insert(name.to_owned(), most.to_string());
        }
    }
}

/// What [`raise`] and [`hold`] have changed: such a parameter waits for a restart, though the file says what is in force.
pub fn overridden(wanted: &BTreeMap<String, String>, written: &BTreeMap<String, String>) -> BTreeMap<String, Pending> {
    let value = |all: &BTreeMap<String, String>, name: &str, default: u64| {
        all.get(name).map_or_else(|| default.to_string(), |text| text.trim().to_owned())
    };
    RAISED
        .into_iter()
        .map(|(name, _, default)| (name, value(written, name, default), value(wanted, name, default)))
        .filter(|(_, old_value, new_value)| old_value != new_value)
        .map(|(name, old_value, new_value)| (name.to_owned(), Pending { old_value, new_value }))
        .collect()
}

/// A parameter's number; none: PostgreSQL refuses what is written.
fn number(parameters: &BTreeMap<String, String>, name: &str, default: u64) -> Option<u64> {
    parameters.get(name).map_or(Some(default), |text| text.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn place() -> Place {
        Place {
            data_dir: "/v/pgdata".into(),
            wal_dir: None,
            state_dir: "/v".into(),
            socket_dir: "/var/run/postgresql".into(),
            listen_addresses: "*".into(),
            port: 5432,
            cluster: "orders".into(),
            member: "orders-1".into(),
            database: "postgres".into(),
            config_dir: "/v/pgdata".into(),
            base_name: "postgresql".into(),
            custom_conf: None,
            krbsrvname: None,
        }
    }

    fn replicator() -> Credentials {
        Credentials { username: "replicator".into(), ..Credentials::default() }
    }

    fn upstream() -> Upstream {
        Upstream {
            member: "orders-0".into(),
            host: "orders-0.orders-pods.shop.svc".into(),
            ip: "10.0.0.1".into(),
            port: 5432,
            slot: Some("orders_1".into()),
        }
    }

    #[test]
    fn the_configuration_wins_over_defaults_and_never_over_what_is_ours() {
        let mut config = ServerConfig { upstream: Some(upstream()), ..ServerConfig::default() };
        for (name, value) in
            [("Wal_Keep_Size", "1GB"), ("port", "1"), ("synchronous_standby_names", "*"), ("search_path", "a'b\\c")]
        {
            config.parameters.insert(name.into(), value.into());
        }
        config.sync_names = "ANY 1 (\"orders-1\",\"orders-2\")".into();
        let text = postgresql_conf(
            &place(),
            &config,
            Given { replication: &replicator(), tls: true, major: Some(15), base: false },
        );
        for line in [
            "wal_keep_size = '1GB'",
            "port = '5432'",
            "synchronous_standby_names = 'ANY 1 (\"orders-1\",\"orders-2\")'",
            "wal_level = 'replica'",
            "search_path = 'a''b\\\\c'",
            "primary_slot_name = 'orders_1'",
            "ssl_key_file = '/v/tls/tls.key'",
            "hot_standby = 'on'",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert!(text.contains(
            "user=replicator application_name=orders-1 passfile=/v/conf/pgpass connect_timeout=5 sslmode=prefer"
        ));
        assert!(!text.to_lowercase().contains("password="), "{text}");
    }

    #[test]
    fn rules_of_the_configuration_replace_the_open_ones() {
        let roles = Roles {
            superuser: "postgres",
            replication: "replicator",
            rewind: "rewinder",
            database: "postgres",
            trust_superuser: false,
            md5: false,
        };
        let mut config = ServerConfig::default();
        assert!(pg_hba_conf(&config, &roles).ends_with("host all all all scram-sha-256\n"));
        config.pg_hba.push("hostssl all all all cert\nlocal all all trust".into());
        let text = pg_hba_conf(&config, &roles);
        assert!(!text.contains("host all all all"));
        assert!(text.ends_with("hostssl all all all cert local all all trust\n"));
        assert!(text.contains("\nlocal all \"postgres\" scram-sha-256\n"));
    }

    #[test]
    fn what_was_configured_before_patroni_is_kept() {
        let given = Given { replication: &replicator(), tls: false, major: None, base: true };
        let text = postgresql_conf(&place(), &ServerConfig::default(), given);
        let at =
            |line: &str| text.lines().position(|other| other == line).unwrap_or_else(|| panic!("{line} in\n{text}"));
        let base = at("include_if_exists '/v/pgdata/postgresql.base.conf'");
        assert!(at("password_encryption = 'scram-sha-256'") < base, "a default gives way");
        assert!(at("wal_level = 'replica'") > base && at("hot_standby = 'on'") > base);
        assert_eq!(text.matches("password_encryption").count(), 1);
        let roles =
            Roles { superuser: "p", replication: "r", rewind: "w", database: "d", trust_superuser: false, md5: true };
        assert!(pg_hba_conf(&ServerConfig::default(), &roles).contains("local all \"p\" md5\n"));
    }

    #[test]
    fn secrets_are_quoted() {
        let who = Credentials { username: "re:pl".into(), password: "a\\b:c".into(), ..Credentials::default() };
        assert_eq!(passfile(&[&who]), "*:*:*:re\\:pl:a\\\\b\\:c\n");
        assert_eq!(conninfo_quote("it's"), "'it\\'s'");
        assert_eq!(conninfo_quote(""), "''");
    }

    #[test]
    fn alter_system_does_not_take_what_is_ours() {
        let text = "# head\nwork_mem = '8MB'\nprimary_conninfo = 'x'\nsynchronous_standby_names='*'\n";
        assert_eq!(cleaned_auto_conf(text).as_deref(), Some("# head\nwork_mem = '8MB'\n"));
        assert_eq!(cleaned_auto_conf("work_mem = '8MB'\n"), None);
    }

    #[test]
    fn a_standby_has_what_its_primary_had() {
        let mut parameters = BTreeMap::from([("max_connections".to_owned(), "50".to_owned())]);
        let control = BTreeMap::from([
            ("max_connections setting".to_owned(), 200),
            ("max_locks_per_xact setting".to_owned(), 64),
            ("max_worker_processes setting".to_owned(), 16),
        ]);
        raise(&mut parameters, &control);
        assert_eq!(parameters["max_connections"], "200");
        assert_eq!(parameters["max_worker_processes"], "16");
        assert!(!parameters.contains_key("max_locks_per_transaction"));
    }

    #[test]
    fn a_primary_waits_for_its_standbys_and_says_so() {
        let wanted = BTreeMap::from([("max_connections".to_owned(), "200".to_owned())]);
        let control = BTreeMap::from([("max_connections setting".to_owned(), 100)]);
        let limits = |limit| BTreeMap::from([("max_connections".to_owned(), limit)]);
        let mut held = wanted.clone();
        hold(&mut held, &limits(100), &control);
        assert_eq!(held["max_connections"], "100");
        let waits = overridden(&wanted, &held);
        assert_eq!(waits["max_connections"], Pending { old_value: "100".into(), new_value: "200".into() });
        // It never gets less than it has, nor is anything held that nobody waits for.
        let mut held = wanted.clone();
        hold(&mut held, &limits(50), &BTreeMap::from([("max_connections setting".to_owned(), 150)]));
        assert_eq!(held["max_connections"], "150");
        let mut free = wanted.clone();
        hold(&mut free, &BTreeMap::new(), &control);
        assert!(overridden(&wanted, &free).is_empty());
    }

    #[test]
    fn elsewhere_and_otherwise_called_files_are_told_to_the_postmaster() {
        let place = Place {
            config_dir: "/v/etc".into(),
            base_name: "main".into(),
            custom_conf: Some("/etc/my.conf".into()),
            ..place()
        };
        assert_eq!(place.conf(), Path::new("/v/etc/main.conf"));
        let arguments = place.arguments(&[]).join(" ");
        assert!(
            arguments.contains("config_file=/v/etc/main.conf") && arguments.contains("data_directory=/v/pgdata"),
            "{arguments}"
        );
        let text = postgresql_conf(
            &place,
            &ServerConfig::default(),
            Given { replication: &replicator(), tls: false, major: None, base: false },
        );
        assert!(
            text.contains("include_if_exists '/etc/my.conf'") && text.contains("primary_conninfo = ''\n"),
            "{text}"
        );
        assert!(!self::place().arguments(&[]).join(" ").contains("config_file"));
    }

    #[test]
    fn how_standbys_log_in_is_the_configurations() {
        let options =
            [("sslmode", "verify-full"), ("sslrootcert", "/ca.crt")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let who = Credentials { options: options.into(), ..replicator() };
        let place = Place { krbsrvname: Some("pg".into()), ..place() };
        let conninfo = primary_conninfo(&place, &upstream(), &who);
        assert!(
            conninfo.contains("sslmode=verify-full sslrootcert=/ca.crt krbsrvname=pg") && !conninfo.contains("prefer"),
            "{conninfo}"
        );
    }
}
