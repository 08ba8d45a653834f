//! The passwords of our own roles, brought to what is mounted: the leader's part of a change of passwords without downtime.

use std::collections::BTreeSet;

use postgres_protocol::password::scram_sha_256;

use super::local::QUIET;
use super::sql::{identifier, literal};
use super::{Error, Postgres, verifier};
use crate::config::User;

impl Postgres {
    /// The roles, by user, whose password in `pg_authid` is not the mounted one; empty on a standby. With `repair` they get it.
    ///
    /// Died after any `ALTER ROLE`: the rest is found by the next look. The superuser comes last: until then the login that we have
    /// stays good, and [`super::login`] knows a way in afterwards.
    pub async fn differing_passwords(&self, repair: bool) -> Result<Vec<String>, Error> {
        let config = self.config();
        let client = self.login(&config.postgres.database, QUIET).await?;
        if client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?.try_get::<_, bool>(0)? {
            return Ok(Vec::new());
        }
        // A name counts once: without a user for pg_rewind that is the superuser.
        let mut seen = BTreeSet::new();
        let mut wanted = Vec::new();
        for user in [User::Superuser, User::Replication, User::Rewind, User::App] {
            if let Ok(who) = config.credentials(user)
                && seen.insert(who.username.clone())
            {
                wanted.insert(0, who);
            }
        }
        let mut differing = Vec::new();
        for who in wanted {
            let stored = client
                .query_opt("SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1", &[&who.username])
                .await?;
            // A role that does not exist was never made, or was removed by a person.
            let Some(stored) = stored else { continue };
            if verifier::matches(stored.try_get(0)?, &who.username, &who.password) {
                continue;
            }
            if repair {
                let verifier = literal(&scram_sha_256(who.password.as_bytes()));
                client.batch_execute(&format!("ALTER ROLE {} PASSWORD {verifier}", identifier(&who.username))).await?;
                tracing::info!(role = %who.username, "the role has its new password");
            }
            differing.push(who.username);
        }
        Ok(differing)
    }
}
