//! The superuser's login to our own server, also in the moments in which its password here and there differ.
//!
//! The password is in two places: in the Secret (or the configuration file) that we read, and in `pg_authid`, which all members share.
//! They change at different times. The leader brings `pg_authid` to what it reads ([`super::passwords`]); a standby may read the new
//! one before the leader has, or the old one for a minute longer (kubelets refresh Secrets at their own pace). So a login tries
//! 1. the password that is mounted now,
//! 2. the one with which the last login of this agent succeeded,
//! 3. the door: the line of `pg_hba.conf` for the superuser on the unix socket, which is ours anyway, is made to let us in without a
//!    password, for the moment of this one login. In a pod that is `trust`, as only the pod's own containers reach the socket;
//!    elsewhere it is `peer`, which lets in nobody but the system user that PostgreSQL itself runs as.
//!
//! What if we die between two steps?
//! * Before the door is open: nothing has changed; the next agent tries the same.
//! * While it is open: the next agent writes `pg_hba.conf` anew as soon as it is attached (it compares with what is there), and reloads.
//!   A start writes it as well.
//! * After `ALTER ROLE` of the superuser: the server has the new password, and it is the mounted one, which is tried first.
//! * Between `ALTER ROLE` of two roles: the next look finds the rest.
//!
//! Nobody is ever locked out: whatever password `pg_authid` has, the door leads in.

use std::sync::PoisonError;
use std::time::Duration;

use matriarch_supervisor::protocol::Request;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::local::{self, Error};
use super::{Postgres, conf};
use crate::config::{Config, Credentials, User};
use crate::supervisor::{CallError, Supervisor};

/// A reload that opens the door is in force within milliseconds; after this it has not helped.
const OPENS: Duration = Duration::from_secs(3);
/// Between two tries to go through it, and to close it.
const LOOK: Duration = Duration::from_millis(20);
const CLOSE_AGAIN: Duration = Duration::from_millis(500);
/// A door that led nowhere (the role does not exist) is not tried again for so long.
const REST: Duration = Duration::from_secs(30);
/// Name of the map in `pg_ident.conf`.
const MAP: &str = "matriarch_door";

/// What is known of logins.
#[derive(Default)]
pub struct Logins {
    /// With which the last one succeeded.
    good: std::sync::Mutex<Option<Credentials>>,
    /// When the door led nowhere.
    barred: std::sync::Mutex<Option<Instant>>,
}

impl Postgres {
    /// Connects to `dbname` as the superuser.
    pub(crate) async fn login(&self, dbname: &str, options: &str) -> Result<Client, Error> {
        let config = self.reach();
        let mounted = config.credentials(User::Superuser);
        let good = self.logins.good.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut refused = None;
        for who in
            mounted.as_ref().ok().into_iter().chain(good.as_ref().filter(|good| mounted.as_ref().ok() != Some(*good)))
        {
            match local::connect_as(&config, who, dbname, options).await {
                Ok(client) => {
                    if good.as_ref() != Some(who) {
                        *self.logins.good.lock().unwrap_or_else(PoisonError::into_inner) = Some(who.clone());
                    }
                    return Ok(client);
                }
                Err(error @ Error::Password(_)) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        let refused = match (mounted, refused) {
            (Ok(who), Some(refused)) => {
                let barred = *self.logins.barred.lock().unwrap_or_else(PoisonError::into_inner);
                if barred.is_some_and(|since| since.elapsed() < REST) {
                    return Err(refused);
                }
                match self.through_the_door(config, who, dbname, options).await {
                    Some(Ok(client)) => return Ok(client),
                    Some(Err(error @ (Error::Starting(_) | Error::Stopping(_) | Error::Absent(_)))) => {
                        return Err(error);
                    }
                    _ => refused,
                }
            }
            (Err(error), _) => return Err(error.into()),
            (Ok(_), None) => Error::Failed("there is no login".to_owned()),
        };
        *self.logins.barred.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Err(refused)
    }

    /// None: there is no door. It is closed again whatever becomes of the one who asked.
    async fn through_the_door(
        &self,
        config: std::sync::Arc<Config>,
        who: Credentials,
        dbname: &str,
        options: &str,
    ) -> Option<Result<Client, Error>> {
        let supervisor = self.supervisor.clone();
        let (hba, ident) = (self.place.hba(), self.place.ident());
        let lock = self.files.lock();
        let (answer, answered) = oneshot::channel();
        let (dbname, options) = (dbname.to_owned(), options.to_owned());
        tokio::spawn(async move {
            // Nobody writes these files meanwhile.
            let _lock = lock.lock_owned().await;
            let (Ok(Some(rules)), Ok(maps)) =
                (supervisor.read(hba.clone()).await, supervisor.read(ident.clone()).await)
            else {
                return;
            };
            let Some((open_rules, map)) = open(&config, &who.username, &rules) else { return };
            tracing::warn!(
                "the superuser's password is not the one that PostgreSQL has: logging in over the socket by pg_hba.conf, for a moment"
            );
            if let Some(map) = &map {
                let maps = format!("{}{map}\n", maps.as_deref().unwrap_or_default());
                if supervisor.write(ident.clone(), maps, 0o600).await.is_err() {
                    return;
                }
            }
            let opened = supervisor.write(hba.clone(), open_rules, 0o600).await;
            let result = match opened {
                Ok(()) => enter(&supervisor, &config, &who, &dbname, &options).await,
                Err(error) => Err(Error::Failed(error.to_string())),
            };
            // Fails when the one who asked has gone.
            let _ = answer.send(result);
            loop {
                let closed = async {
                    supervisor.write(hba.clone(), rules.clone(), 0o600).await?;
                    if map.is_some() {
                        supervisor.write(ident.clone(), maps.clone().unwrap_or_default(), 0o600).await?;
                    }
                    supervisor.done(Request::Reload).await
                };
                match closed.await {
                    // Whoever attaches next writes the files anew.
                    Ok(()) | Err(CallError::Detached) => return,
                    // Nothing runs that could have read it.
                    Err(error) if supervisor.read(hba.clone()).await.ok().flatten().as_ref() == Some(&rules) => {
                        return tracing::debug!("closing the door: {error}");
                    }
                    Err(error) => tracing::warn!("pg_hba.conf could not be written back, again soon: {error}"),
                }
                sleep(CLOSE_AGAIN).await;
            }
        });
        answered.await.ok()
    }
}

async fn enter(
    supervisor: &Supervisor,
    config: &Config,
    who: &Credentials,
    dbname: &str,
    options: &str,
) -> Result<Client, Error> {
    supervisor.done(Request::Reload).await.map_err(|error| Error::Failed(error.to_string()))?;
    let end = Instant::now() + OPENS;
    loop {
        match local::connect_as(config, who, dbname, options).await {
            Err(Error::Password(_)) if Instant::now() < end => sleep(LOOK).await,
            other => return other,
        }
    }
}

/// The rules with the door in front, and the line of the map that it needs; none: this system has no name for our user.
fn open(config: &Config, superuser: &str, rules: &str) -> Option<(String, Option<String>)> {
    let superuser = conf::hba_quote(superuser);
    if !config.own_supervisor {
        return Some((format!("local all {superuser} trust\n{rules}"), None));
    }
    let us = conf::hba_quote(&system_user(rustix::process::getuid().as_raw())?);
    Some((format!("local all {superuser} peer map={MAP}\n{rules}"), Some(format!("{MAP} {us} {superuser}"))))
}

/// The name of a system user.
fn system_user(uid: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    })
}
