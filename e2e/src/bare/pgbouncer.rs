//! Debian's PgBouncer with the configuration of its example in `docs`, in front of what stands for the Service `orders`, over TLS.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::member::{Member, POSTGRES_PORT};
use super::sandbox::SERVICE;
use super::stage::Stage;
use super::team::Team;
use crate::host::child::Running;
use crate::host::run::{find_program, run};
use crate::workload::Database;

/// What users apply is what runs here.
const EXAMPLE: &str = include_str!("../../../docs/pgbouncer.yaml");
/// Where the example's Deployment mounts its files; this lies in the sandbox's own file system tree.
const FOLDER: &str = "/etc/pgbouncer";
/// The application's password: with all that has to be quoted somewhere.
const PASSWORD: &str = "tusk's \"pass\\:word";

/// A running PgBouncer; dropping it ends it.
#[derive(Debug)]
pub struct Pooler(#[expect(dead_code, reason = "ends PgBouncer by being dropped")] Running);

impl Pooler {
    /// In front of the Service `orders`, for the user that [`application`] makes.
    pub fn start(stage: &Stage, team: &Team<'_>) -> Result<Self> {
        let example = team.folder().join("pgbouncer");
        for folder in ["config", "users", "tls"] {
            std::fs::create_dir_all(example.join(folder))?;
        }
        let write = |name: &str, text: &str| std::fs::write(example.join(name), text);
        for (name, text) in configuration()? {
            write(&format!("config/{name}"), &text)?;
        }
        write("users/userlist.txt", &format!("\"app\" \"{}\"\n", PASSWORD.replace('"', "\"\"")))?;
        write("tls/ca.crt", &std::fs::read_to_string(team.folder().join("ca.crt"))?)?;
        let hosts = team.folder().join("hosts");
        std::fs::write(&hosts, format!("127.0.0.1 localhost\n{SERVICE} orders\n"))?;
        over(&example, FOLDER)?;
        over(&hosts, "/etc/hosts")?;
        let program = find_program("pgbouncer").context("there is no pgbouncer (`make deps`)")?;
        let mut command = Command::new(program);
        command.arg(format!("{FOLDER}/config/pgbouncer.ini")).uid(stage.postgres.uid).gid(stage.postgres.gid);
        Ok(Self(Running::start(&mut command, &team.folder().join("pgbouncer.log"))?))
    }

    /// Where applications connect.
    pub fn application() -> Database {
        Database {
            address: SERVICE.to_string(),
            port: 6432,
            server_port: POSTGRES_PORT,
            user: "app".to_owned(),
            password: PASSWORD.to_owned(),
            dbname: "app".to_owned(),
        }
    }

    /// PgBouncer's console, which the application's user may use.
    pub fn console() -> Database {
        Database { dbname: "pgbouncer".to_owned(), ..Self::application() }
    }
}

/// Makes the application's user and database.
pub async fn application(leader: &Member) -> Result<()> {
    leader.sql(&format!("CREATE ROLE app LOGIN PASSWORD '{}'", PASSWORD.replace('\'', "''"))).await?;
    leader.sql("CREATE DATABASE app OWNER app").await.map(drop)
}

/// The parameters of a server with a certificate for the Service `orders`, whose authority is written beside it.
pub fn certified(stage: &Stage, folder: &Path) -> Result<Value> {
    std::fs::create_dir_all(folder)?;
    // Its own authority.
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(vec!["orders".to_owned()])?;
    std::fs::write(folder.join("ca.crt"), cert.pem())?;
    for (name, text) in [("server.crt", cert.pem()), ("server.key", signing_key.serialize_pem())] {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        chown(&path, Some(stage.postgres.uid), Some(stage.postgres.gid))?;
    }
    Ok(json!({"postgresql": {"parameters": {
        "ssl": "on", "ssl_cert_file": folder.join("server.crt"), "ssl_key_file": folder.join("server.key"),
    }}}))
}

/// The API server would take every object of the example as it is.
pub async fn is_accepted(stage: &Stage, namespace: &str) -> Result<()> {
    for object in objects()? {
        let object: DynamicObject = serde_json::from_value(object)?;
        let kind = GroupVersionKind::try_from(object.types.as_ref().context("no kind")?)?;
        let (resource, client) = (ApiResource::from_gvk(&kind), stage.plane.client.clone());
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
        let name = object.metadata.name.clone().context("no name")?;
        let params = PatchParams { dry_run: true, ..PatchParams::apply("docs").validation_strict() };
        api.patch(&name, &params, &Patch::Apply(&object)).await.with_context(|| format!("{} {name}", kind.kind))?;
    }
    Ok(())
}

fn objects() -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple::<Value>(EXAMPLE)?)
}

/// The files of the example's `ConfigMap`.
fn configuration() -> Result<Vec<(String, String)>> {
    let all = objects()?;
    let map = all.iter().find(|object| object["kind"] == "ConfigMap").context("the example has no ConfigMap")?;
    let data = map["data"].as_object().context("the example's ConfigMap is empty")?;
    let files: Vec<_> =
        data.iter().filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect();
    ensure!(!files.is_empty(), "the example's ConfigMap has no text");
    Ok(files)
}

/// Puts a file or folder in the place of another one; the sandbox has a tree of mounts of its own.
fn over(what: &Path, place: &str) -> Result<()> {
    run(&["mount", "--bind", &what.display().to_string(), place]).map(drop)
}
