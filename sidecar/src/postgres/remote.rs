//! What another server says over the replication protocol: who it is, where it is, whether it is a primary. Asked with the
//! replication role's rights alone, by psql in PostgreSQL's container.

use matriarch_ha::effect::Upstream;
use matriarch_ha::event::DataDir;
use matriarch_ha::types::{Lsn, Timeline};
use matriarch_supervisor::protocol::Refusal;

use super::{Error, Postgres, conf, tool};
use crate::config::User;
use crate::supervisor::CallError;

/// The answer of `IDENTIFY_SYSTEM`, and whether the server is in recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// System identifier.
    pub system_id: String,
    /// Its timeline.
    pub timeline: Timeline,
    /// How far it has flushed.
    pub lsn: Lsn,
    /// It is in recovery.
    pub standby: bool,
}

impl Postgres {
    /// Asks; none: the image has no psql.
    pub(super) async fn identify(&self, whom: &Upstream) -> Result<Option<Remote>, Error> {
        // A transaction of a server in recovery is read-only, whatever its defaults.
        let Some(said) = self.walsender(whom, &["IDENTIFY_SYSTEM", "SHOW transaction_read_only"]).await? else {
            return Ok(None);
        };
        let remote = parse(&said);
        remote.map(Some).ok_or_else(|| Error::State(format!("{} answered {said:?} to IDENTIFY_SYSTEM", whom.host)))
    }

    /// Commands of the replication protocol; none: the image has no psql.
    pub(super) async fn walsender(&self, whom: &Upstream, commands: &[&str]) -> Result<Option<String>, Error> {
        let replication = self.config().credentials(User::Replication)?;
        let more =
            [("user", replication.username.as_str()), ("replication", "true"), ("application_name", "matriarch")];
        let source = conf::conninfo(&self.place, whom, &more);
        let mut arguments = ["-X", "-At", "-q", "-w", "-d", &source].map(ToOwned::to_owned).to_vec();
        arguments.extend(commands.iter().flat_map(|command| ["-c".to_owned(), (*command).to_owned()]));
        match self.supervisor.run(tool("psql", arguments)).await {
            Err(CallError::Refused { kind: Refusal::NotFound, .. }) => {
                tracing::warn!("the image has no psql: {} cannot be asked who it is", whom.host);
                Ok(None)
            }
            Ok(finished) if finished.success() => Ok(Some(finished.output.stdout)),
            Ok(finished) => Err(Error::Program(finished.reason())),
            Err(error) => Err(error.into()),
        }
    }

    /// Before anything is removed here, the leader says that it has what we would lose: it answers, as the primary of our cluster
    /// (the standby leader of a standby cluster follows a server that may be any).
    pub(super) async fn another_copy(&self, leader: &Upstream) -> Result<(), Error> {
        if leader.host.is_empty() {
            return Ok(()); // an archive is followed, and only ever by a member without data
        }
        let Some(remote) = self.identify(leader).await? else { return Ok(()) };
        if remote.standby && !self.settings().standby_cluster {
            return Err(Error::State(format!("{} is no primary: nothing is removed here", leader.member)));
        }
        match self.look().await? {
            DataDir::Present(ours) if ours.system_id != remote.system_id => Err(Error::State(format!(
                "{} belongs to another cluster ({}, ours is {}): nothing is removed here",
                leader.host, remote.system_id, ours.system_id
            ))),
            _ => Ok(()),
        }
    }
}

fn parse(said: &str) -> Option<Remote> {
    let mut lines = said.lines();
    let mut fields = lines.next()?.split('|');
    let (system_id, timeline, lsn) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Remote {
        system_id: system_id.to_owned(),
        timeline: Timeline(timeline.parse().ok()?),
        lsn: lsn.parse().ok()?,
        standby: lines.next()? == "on",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read() {
        let remote = parse("7439129873659136912|3|0/5000148|\non\n").unwrap();
        assert_eq!((remote.timeline, remote.lsn, remote.standby), (Timeline(3), Lsn(0x500_0148), true));
        assert_eq!(parse("7439129873659136912|3\n"), None);
        assert_eq!(parse(""), None);
    }
}
