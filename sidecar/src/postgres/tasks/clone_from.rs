//! A new cluster from a base backup of another server (`matriarch.clone`), and SQL that runs while a cluster is made.

use matriarch_supervisor::protocol::FileOp;

use super::super::{Error, Postgres, conf, local, tool};
use crate::config::clone::CloneFrom;
use crate::config::{Credentials, User};
use crate::supervisor::CallError;
use crate::supervisor::runs::Finished;

impl Postgres {
    /// Fills an empty PGDATA. The password is in a file as long as that takes.
    pub(super) async fn clone_from(&self, from: &CloneFrom) -> Result<Result<Finished, CallError>, Error> {
        let config = self.config();
        let who = Credentials::read(&config.matriarch.secrets_dir, User::Clone)?;
        let passfile = self.place.clone_passfile();
        self.supervisor.write(passfile.clone(), conf::passfile(&[&who]), 0o600).await?;
        let port = from.port.to_string();
        let source = conf::pairs(&[
            ("host", from.host.as_str()),
            ("port", &port),
            ("user", &who.username),
            ("sslmode", &from.ssl_mode),
            ("passfile", &passfile.to_string_lossy()),
            ("application_name", &config.scope),
            ("connect_timeout", "10"),
        ]);
        let mut arguments = vec![
            "-D".to_owned(),
            self.place.data_dir.to_string_lossy().into_owned(),
            format!("--dbname={source}"),
            "--wal-method=stream".to_owned(),
            "--checkpoint=fast".to_owned(),
            "--no-password".to_owned(),
        ];
        arguments.extend(self.fresh_wal_dir().await?);
        let finished = self.supervisor.run(tool("pg_basebackup", arguments)).await;
        self.supervisor.file(FileOp::Remove { path: passfile }).await?;
        Ok(finished)
    }

    /// `matriarch.post_init_sql`, as the superuser in the application's database (the agent's, where there is none), in one transaction.
    ///
    /// Died after its end and before the mark is written: it runs once more. What fails makes the bootstrap fail, and it begins anew.
    pub(super) async fn post_init_sql(&self) -> Result<(), Error> {
        let config = self.config();
        let statements = &config.matriarch.post_init_sql;
        let mark = self.place.post_init();
        if statements.is_empty() || self.supervisor.read(mark.clone()).await?.is_some() {
            return Ok(());
        }
        let app = config.credentials(User::App).ok().map(|app| app.dbname.unwrap_or(app.username));
        let client = self.login(app.as_ref().unwrap_or(&config.postgres.database), local::LONG).await?;
        client.batch_execute("BEGIN").await?;
        for (number, statement) in statements.iter().enumerate() {
            if let Err(error) = client.batch_execute(statement).await {
                let Some(said) = error.as_db_error() else { return Err(error.into()) };
                return Err(Error::Hopeless(format!(
                    "matriarch.post_init_sql, statement {}: {}",
                    number + 1,
                    said.message()
                )));
            }
        }
        client.batch_execute("COMMIT").await?;
        Ok(self.supervisor.write(mark, "done\n".to_owned(), 0o600).await?)
    }
}
