//! A copy of another member, by the first of `create_replica_methods` that works.

use std::collections::BTreeMap;

use matriarch_ha::effect::Upstream;
use matriarch_supervisor::protocol::{FileOp, Run};

use super::super::settings::{Custom, Method};
use super::super::{Error, Postgres, conf, tool};
use crate::config::User;

impl Postgres {
    /// The leader says that it is a primary of our cluster before anything is removed here.
    pub(super) async fn base_backup(&self, from: &Upstream, leader: &Upstream) -> Result<(), Error> {
        self.write_passfile().await?;
        self.another_copy(leader).await?;
        if from.member != leader.member {
            self.identify(from).await?;
        }
        let settings = self.settings();
        // The standby leader copies from the remote cluster, which is no member.
        let methods = if from.member.is_empty() { &settings.standby_leader } else { &settings.replica };
        self.first_that_works(methods.iter(), Some(from)).await
    }

    /// A copy without a leader. Only ever ordered for a member without data.
    pub(super) async fn restore(&self) -> Result<(), Error> {
        let settings = self.settings();
        let alone = settings.replica.iter().filter(|method| matches!(method, Method::Custom(c) if c.no_leader));
        self.first_that_works(alone, None).await
    }

    async fn first_that_works(
        &self,
        methods: impl Iterator<Item = &Method>,
        from: Option<&Upstream>,
    ) -> Result<(), Error> {
        let mut last = Error::State("none of postgresql.create_replica_methods can be used".to_owned());
        for method in methods {
            let done = match (method, from) {
                (Method::BaseBackup(_), Some(from)) if from.host.is_empty() => continue,
                (Method::BaseBackup(options), Some(from)) => self.pg_basebackup(from, options).await,
                (Method::BaseBackup(_), None) => continue,
                (Method::Custom(custom), from) => self.custom_copy(custom, from).await,
            };
            match done {
                Ok(()) => return Ok(()),
                Err(error @ Error::Supervisor(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!("a copy could not be made: {error}");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// What is lost if everything dies after a step:
    /// 1. `.new` of an earlier try is removed: nothing.
    /// 2. PGDATA is removed, and the folder of its WAL is emptied: this member's copy; the core has made sure that it is not the only one.
    /// 3. The copy is made in `.new`: the work, and it begins again.
    /// 4. standby.signal is written there: nothing. A copy never is without it, so none can start as a primary.
    /// 5. `.new` becomes PGDATA: nothing.
    async fn pg_basebackup(&self, from: &Upstream, options: &[String]) -> Result<(), Error> {
        let replication = self.config().credentials(User::Replication)?;
        let (fresh, data_dir) = (self.place.beside(".new"), self.place.data_dir.clone());
        self.supervisor.file(FileOp::RemoveTree { path: fresh.clone() }).await?;
        self.supervisor.file(FileOp::RemoveTree { path: data_dir.clone() }).await?;
        for path in [self.place.rewinding(), self.place.partial()] {
            self.supervisor.file(FileOp::Remove { path }).await?;
        }
        self.files.forget();
        let wal_dir = self.fresh_wal_dir().await?;
        // Not under the member's name: a copy in the making must never count as a synchronous standby.
        let name = format!("clone of {}", self.config().pod.name);
        let source = conf::conninfo(&self.place, from, &[("user", &replication.username), ("application_name", &name)]);
        let backup = |slot: Option<&str>| -> Run {
            let mut arguments = vec![
                "-D".to_owned(),
                fresh.to_string_lossy().into_owned(),
                format!("--dbname={source}"),
                "--wal-method=stream".to_owned(),
                "--checkpoint=fast".to_owned(),
                "--no-password".to_owned(),
            ];
            arguments.extend(wal_dir.clone());
            arguments.extend(slot.map(|slot| format!("--slot={slot}")));
            arguments.extend(options.iter().cloned());
            tool("pg_basebackup", arguments)
        };
        let mut finished = self.supervisor.run(backup(from.slot.as_deref())).await?;
        let no_slot = |stderr: &str| stderr.contains("replication slot") && stderr.contains("does not exist");
        if !finished.success() && from.slot.is_some() && no_slot(&finished.output.stderr) {
            // The leader has not made our slot yet: a temporary one will do.
            self.supervisor.file(FileOp::RemoveTree { path: fresh.clone() }).await?;
            self.fresh_wal_dir().await?;
            finished = self.supervisor.run(backup(None)).await?;
        }
        if !finished.success() {
            return Err(Error::Program(finished.reason()));
        }
        self.supervisor.write(fresh.join("standby.signal"), String::new(), 0o600).await?;
        self.supervisor.file(FileOp::Rename { from: fresh, to: data_dir }).await?;
        self.files.forget();
        Ok(())
    }

    /// What is lost if everything dies after a step:
    /// 1. `.partial` is written: PGDATA counts as empty from here on; the core has made sure that it is not the only copy.
    /// 2. PGDATA is removed (not with `keep_data`), the command fills it: the work, and it begins again.
    /// 3. standby.signal is written: nothing. No copy is without it when it counts.
    /// 4. `.partial` is removed: nothing.
    async fn custom_copy(&self, custom: &Custom, from: Option<&Upstream>) -> Result<(), Error> {
        let data_dir = self.place.data_dir.clone();
        self.supervisor.write(self.place.partial(), format!("a copy by `{}`\n", custom.name), 0o600).await?;
        if !custom.keep_data {
            self.supervisor.file(FileOp::RemoveTree { path: data_dir.clone() }).await?;
        }
        self.files.forget();
        let connstring = match from.filter(|from| !from.host.is_empty()) {
            Some(from) => conf::upstream_url(from, &self.config().credentials(User::Replication)?.username),
            None => String::new(),
        };
        let argv = custom.argv(&self.config().scope, &data_dir.to_string_lossy(), &connstring);
        let passfile = self.place.passfile().to_string_lossy().into_owned();
        let finished = self.fill(argv, BTreeMap::from([("PGPASSFILE".to_owned(), passfile)])).await;
        let finished = finished.map_err(|error| match error {
            crate::supervisor::CallError::Refused { message, .. } => Error::Program(message),
            other => other.into(),
        })?;
        if !finished.success() {
            return Err(Error::Program(format!("create_replica_methods {}: {}", custom.name, finished.reason())));
        }
        let control = self.controldata(&data_dir).await?;
        if !control.success() {
            return Err(Error::Program(format!("{} left no data directory: {}", custom.name, control.reason())));
        }
        self.supervisor.write(self.place.standby_signal(), String::new(), 0o600).await?;
        for path in [data_dir.join("recovery.signal"), self.place.rewinding(), self.place.partial()] {
            self.supervisor.file(FileOp::Remove { path }).await?;
        }
        self.files.forget();
        Ok(())
    }
}
