//! Files that change while we run: Secrets and certificates, which a kubelet (or a person) renews.
//!
//! What has changed is written for PostgreSQL and reloaded, as at SIGHUP: the passfile of the WAL receiver, the certificates. The leader
//! brings the roles' passwords in PostgreSQL to what is mounted.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::{Config, Credentials, User};
use crate::driver::handle::Handle;
use crate::reload::Reloader;
use crate::tls::{Files, Tls};

/// Between two looks: a dozen `stat`s.
const LOOK: Duration = Duration::from_secs(1);
/// A password that differs although we have not seen it change is believed to be the wanted one after this: after a failover our
/// kubelet may be behind the one of the former leader, which has set a newer one. (A kubelet refreshes within some 90 s.)
const SETTLES: Duration = Duration::from_secs(150);
/// After a look that failed.
const AGAIN: Duration = Duration::from_secs(3);
/// Between two looks at roles whose passwords were right.
const SELDOM: Duration = Duration::from_mins(10);

/// Looks for changes, for ever.
pub async fn keep(handle: Handle, tls: Option<Arc<Tls>>, reloader: Reloader) {
    let mut config = reloader.config();
    let mut stamps = stamps(&config);
    let mut known = credentials(&config);
    let mut passwords = Passwords::default();
    loop {
        sleep(LOOK).await;
        let (now_config, former) = (reloader.config(), stamps.clone());
        let reloaded = !Arc::ptr_eq(&config, &now_config);
        config = now_config;
        stamps = self::stamps(&config);
        if reloaded || stamps != former {
            let changed = merge(&mut known, credentials(&config));
            for user in &changed {
                tracing::info!("the password of the user `{}` has changed", user.folder());
            }
            if !changed.is_empty() {
                passwords.changed(Instant::now());
            }
            if !reloaded {
                tracing::info!("Secrets or certificates have changed: PostgreSQL's files are looked at");
                if let Some((tls, files)) = tls.as_ref().zip(Files::configured(&config.restapi, &config.ctl))
                    && let Err(error) = tls.reload(files)
                {
                    tracing::warn!(%error, "the certificates cannot be used; the old ones stay");
                }
                reloader.refresh();
            }
        }
        let view = handle.view();
        let leads = view.leader && view.role == "primary" && view.state == "running";
        let in_pod = config.postgres.authentication.is_none();
        if let Some(repair) = passwords.due(Instant::now(), leads, in_pod) {
            let found = reloader.postgres().differing_passwords(repair).await;
            if let Err(error) = &found {
                tracing::warn!("the passwords of PostgreSQL's roles could not be looked at: {error}");
            }
            passwords.looked(Instant::now(), repair, found.ok().map(|differing| !differing.is_empty()));
        }
    }
}

/// Inode, modification time and length of each file; none: it cannot be looked at. Links are followed, so that a swapped folder of a
/// kubelet shows.
pub type Stamp = Option<(u64, i64, i64, u64)>;

fn stamps(config: &Config) -> Vec<Stamp> {
    let mut paths: Vec<PathBuf> = Vec::new();
    if config.postgres.authentication.is_none() {
        let folders = USERS.map(|user| config.matriarch.secrets_dir.join(user.folder()));
        paths.extend(folders.iter().flat_map(|folder| ["username", "password"].map(|name| folder.join(name))));
    }
    let rest = &config.restapi;
    paths.extend([&rest.certfile, &rest.keyfile, &rest.cafile].into_iter().flatten().cloned());
    if let Some(folder) = &config.matriarch.server_tls {
        paths.extend(["tls.crt", "tls.key", "ca.crt"].map(|name| folder.join(name)));
    }
    paths.iter().map(|path| stamp(path)).collect()
}

/// Of one file.
pub fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

const USERS: [User; 4] = [User::Superuser, User::Replication, User::Rewind, User::App];

fn credentials(config: &Config) -> [Option<Credentials>; 4] {
    USERS.map(|user| config.credentials(user).ok())
}

/// What cannot be read for a moment stays as it was known. Tells whose has changed.
fn merge(known: &mut [Option<Credentials>; 4], read: [Option<Credentials>; 4]) -> Vec<User> {
    let mut changed = Vec::new();
    for ((known, read), user) in known.iter_mut().zip(read).zip(USERS) {
        if read.is_some() && *known != read {
            if known.is_some() {
                changed.push(user);
            }
            *known = read;
        }
    }
    changed
}

/// When the leader looks at the roles' passwords, and whether it sets what differs.
#[derive(Debug, Default)]
struct Passwords {
    leads: bool,
    /// When we saw one change.
    changed: Option<Instant>,
    /// Since when they differ, without that.
    differ: Option<Instant>,
    next: Option<Instant>,
}

impl Passwords {
    fn changed(&mut self, now: Instant) {
        self.changed = Some(now);
        self.next = None;
    }

    /// Some: look now; true: set what differs. Where the passwords are in a file of each member (`in_pod` is false) only one that changed
    /// while we run is set: another member's file may be newer for ever.
    fn due(&mut self, now: Instant, leads: bool, in_pod: bool) -> Option<bool> {
        if leads != self.leads {
            (self.leads, self.differ, self.next) = (leads, None, None);
        }
        if !leads || !in_pod && self.changed.is_none() || self.next.is_some_and(|next| now < next) {
            return None;
        }
        let recent = self.changed.is_some_and(|at| !in_pod || now - at < SETTLES);
        Some(recent || self.differ.is_some_and(|since| now - since >= SETTLES))
    }

    /// What a look has found; none: it failed.
    fn looked(&mut self, now: Instant, repaired: bool, differs: Option<bool>) {
        let (differ, pause) = match differs {
            None => (self.differ, AGAIN),
            Some(true) if !repaired => (self.differ.or(Some(now)), AGAIN),
            Some(_) => (None, SELDOM),
        };
        self.differ = differ;
        self.next = Some(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_seen_is_set_at_once_and_another_when_it_has_settled() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut passwords = Passwords::default();
        assert_eq!(passwords.due(at(0), false, true), None, "a standby sets nothing");
        // A new leader only looks.
        assert_eq!(passwords.due(at(0), true, true), Some(false));
        passwords.looked(at(0), false, Some(true));
        assert_eq!(passwords.due(at(1), true, true), None);
        assert_eq!(passwords.due(at(4), true, true), Some(false));
        passwords.looked(at(4), false, Some(true));
        // Our file comes to what the server has: nothing to do.
        let mut lagging = Passwords { differ: passwords.differ, leads: true, ..Passwords::default() };
        lagging.changed(at(60));
        assert_eq!(lagging.due(at(60), true, true), Some(true));
        // It differs for long: it is what is wanted.
        assert_eq!(passwords.due(at(160), true, true), Some(true));
        passwords.looked(at(160), true, Some(true));
        assert_eq!(passwords.due(at(170), true, true), None);
        // Seen as a leader: at once, and again when that failed.
        passwords.changed(at(200));
        assert_eq!(passwords.due(at(200), true, true), Some(true));
        passwords.looked(at(200), true, None);
        assert_eq!((passwords.due(at(201), true, true), passwords.due(at(203), true, true)), (None, Some(true)));
    }

    #[test]
    fn a_password_in_a_members_own_file_is_set_only_when_it_changes_there() {
        let now = Instant::now();
        let mut passwords = Passwords::default();
        assert_eq!(passwords.due(now, true, false), None);
        passwords.changed(now);
        assert_eq!(passwords.due(now + Duration::from_secs(1000), true, false), Some(true));
    }
}
