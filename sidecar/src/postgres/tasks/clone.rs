//! A copy of another member.

use matriarch_ha::effect::Upstream;
use matriarch_supervisor::protocol::{FileOp, Run};

use super::super::{Error, Postgres, conf, tool};
use crate::config::User;

impl Postgres {
    /// The source says that it is a primary before anything is removed here.
    ///
    /// What is lost if everything dies after a step:
    /// 1. `.new` of an earlier try is removed: nothing.
    /// 2. PGDATA is removed: this member's copy; the core has made sure that it is not the only one.
    /// 3. The copy is made in `.new`: the work, and it begins again.
    /// 4. standby.signal is written there: nothing. A copy never is without it, so none can start as a primary.
    /// 5. `.new` becomes PGDATA: nothing.
    pub(super) async fn base_backup(&self, from: &Upstream) -> Result<(), Error> {
        self.write_passfile().await?;
        let asking = self.config.credentials(User::Rewind)?;
        self.timeline_is_in_control(from, &asking.username).await?;
        let replication = self.config.credentials(User::Replication)?;
        let (fresh, data_dir) = (self.place.beside(".new"), self.place.data_dir.clone());
        self.supervisor.file(FileOp::RemoveTree { path: fresh.clone() }).await?;
        self.supervisor.file(FileOp::RemoveTree { path: data_dir.clone() }).await?;
        self.supervisor.file(FileOp::Remove { path: self.place.rewinding() }).await?;
        self.files.forget();
        // Not under the member's name: a copy in the making must never count as a synchronous standby.
        let name = format!("clone of {}", self.config.pod.name);
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
            arguments.extend(slot.map(|slot| format!("--slot={slot}")));
            tool("pg_basebackup", arguments)
        };
        let mut finished = self.supervisor.run(backup(from.slot.as_deref())).await?;
        let no_slot = |stderr: &str| stderr.contains("replication slot") && stderr.contains("does not exist");
        if !finished.success() && from.slot.is_some() && no_slot(&finished.output.stderr) {
            // The leader has not made our slot yet: a temporary one will do.
            self.supervisor.file(FileOp::RemoveTree { path: fresh.clone() }).await?;
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
}
