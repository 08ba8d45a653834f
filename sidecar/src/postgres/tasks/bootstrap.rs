//! A new database: initdb beside PGDATA, and after its first start the roles and the application's database.
//! What a custom bootstrap adds to it is in [`super::custom`].

use matriarch_supervisor::protocol::FileOp;
use postgres_protocol::password::scram_sha_256;
use tokio_postgres::Client;

use super::super::sql::{identifier, literal};
use super::super::{Error, Postgres, local, tool};
use crate::config::{Credentials, SecretError, User};

/// What `pg_rewind` calls on its source (its manual page, "Notes").
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

impl Postgres {
    /// initdb, or the command of `bootstrap.method`.
    pub(super) async fn bootstrap(&self) -> Result<(), Error> {
        match &self.config().bootstrap.custom {
            Some(custom) => self.custom_bootstrap(custom).await,
            None => self.initdb().await,
        }
    }

    /// Made in `<pgdata>.init` and renamed when complete: PGDATA is either absent or whole.
    async fn initdb(&self) -> Result<(), Error> {
        let superuser = self.config().credentials(User::Superuser)?;
        let data_dir = self.place.data_dir.clone();
        match self.supervisor.list(data_dir.clone()).await? {
            None => {}
            // Left by a mount; the rename needs the name.
            Some(names) if names.is_empty() => {
                self.supervisor.file(FileOp::RemoveTree { path: data_dir.clone() }).await?;
            }
            Some(_) => {
                return Err(Error::State(format!("{} is not empty: initdb touches no data", data_dir.display())));
            }
        }
        self.supervisor.file(FileOp::Remove { path: self.place.post_init() }).await?;
        let fresh = self.place.beside(".init");
        self.supervisor.file(FileOp::RemoveTree { path: fresh.clone() }).await?;
        let mut arguments = vec![
            "-D".to_owned(),
            fresh.to_string_lossy().into_owned(),
            format!("--username={}", superuser.username),
            "--auth-local=scram-sha-256".to_owned(),
            "--auth-host=scram-sha-256".to_owned(),
            "--pwfile=/dev/stdin".to_owned(),
            "--no-instructions".to_owned(),
        ];
        arguments.extend(self.config().initdb.iter().cloned());
        arguments.extend(self.fresh_wal_dir().await?);
        let mut run = tool("initdb", arguments);
        // The locale of the database comes from the arguments, or is C.
        run.stdin = format!("{}\n", superuser.password);
        let finished = self.supervisor.run(run).await?;
        if !finished.success() {
            return Err(Error::Program(finished.reason()));
        }
        self.supervisor.file(FileOp::Remove { path: self.place.rewinding() }).await?;
        self.supervisor.file(FileOp::Rename { from: fresh, to: data_dir }).await?;
        self.files.forget();
        Ok(())
    }

    /// Every statement can be repeated. Nothing waits for standbys that cannot be there yet (`synchronous_commit=local`).
    pub(super) async fn post_bootstrap(&self) -> Result<(), Error> {
        let client = self.login(&self.config().postgres.database, local::QUIET).await?;
        if self.bootstrap_marker().await?.is_some() {
            // A backup brought the password of its time.
            role(&client, &self.config().credentials(User::Superuser)?, "SUPERUSER LOGIN").await?;
        }
        role(&client, &self.config().credentials(User::Replication)?, "LOGIN REPLICATION").await?;
        match self.config().credentials(User::Rewind) {
            Ok(rewind) => {
                role(&client, &rewind, "LOGIN").await?;
                let name = identifier(&rewind.username);
                for function in REWIND_FUNCTIONS {
                    client.batch_execute(&format!("GRANT EXECUTE ON FUNCTION {function} TO {name}")).await?;
                }
            }
            Err(error) => missing("pg_rewind", &error),
        }
        match self.config().credentials(User::App) {
            Ok(app) => {
                role(&client, &app, "LOGIN").await?;
                database(&client, app.dbname.as_deref().unwrap_or(&app.username), &app.username).await?;
            }
            Err(error) => missing("the application", &error),
        }
        self.post_init_sql().await?;
        self.post_script().await?;
        self.bootstrapped().await
    }
}

fn missing(who: &str, error: &SecretError) {
    tracing::warn!("no role is made for {who}: {error}");
}

/// Makes a role, or gives an existing one its password and rights. The password travels as a verifier, so no log has it.
async fn role(client: &Client, who: &Credentials, rights: &str) -> Result<(), Error> {
    let name = identifier(&who.username);
    let there = client.query_opt("SELECT FROM pg_catalog.pg_roles WHERE rolname = $1", &[&who.username]).await?;
    if there.is_none() {
        client.batch_execute(&format!("CREATE ROLE {name}")).await?;
    }
    let verifier = literal(&scram_sha_256(who.password.as_bytes()));
    client.batch_execute(&format!("ALTER ROLE {name} {rights} PASSWORD {verifier}")).await?;
    Ok(())
}

async fn database(client: &Client, name: &str, owner: &str) -> Result<(), Error> {
    let there = client.query_opt("SELECT FROM pg_catalog.pg_database WHERE datname = $1", &[&name]).await?;
    if there.is_none() {
        client.batch_execute(&format!("CREATE DATABASE {} OWNER {}", identifier(name), identifier(owner))).await?;
    }
    Ok(())
}
