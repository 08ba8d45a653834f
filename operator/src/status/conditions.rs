//! The conditions: for people what is the matter and what to do, for programs one word each. `Ready`, `Reconciling` and
//! `Stalled` are what kstatus (Flux, Argo CD's health scripts) looks at.

use matriarch_crds::Condition;
use matriarch_crds::cluster::{DeclaredStatus, Storage};

use super::Outcome;
use crate::member::Member;
use crate::next_step::{Step, count, lost, wait};
use crate::observe::Seen;
use crate::plan::{claims, declared as declaration};

/// All of them, without times.
pub(super) fn all(seen: &Seen, step: &Step, outcome: &Outcome, ready: i32) -> Vec<Condition> {
    let mut all = vec![
        ready_condition(seen, ready),
        progressing(step),
        configuration(seen),
        match outcome {
            Outcome::Failed { category, message } => condition("Reconciled", false, category, message),
            _ => condition(
                "Reconciled",
                true,
                "Reconciled",
                "everything is as the spec says, as far as the operator writes it",
            ),
        },
    ];
    all.extend(flux(seen, step, outcome));
    all.push(storage(seen, outcome));
    all.extend(hibernated(seen, step));
    all.extend(declared_state(seen));
    all
}

fn progressing(step: &Step) -> Condition {
    let message = wait::message(step);
    match wait::reason(step) {
        Some(reason) => condition("Progressing", true, reason, &message),
        None => condition("Progressing", false, "Stable", &message),
    }
}

/// `Reconciling` and `Stalled`, never both true.
fn flux(seen: &Seen, step: &Step, outcome: &Outcome) -> [Condition; 2] {
    let stalled = secret_missing(seen)
        .map(|message| ("SecretMissing".to_owned(), message))
        .or_else(|| match outcome {
            Outcome::CannotGrow(said) => Some(("ResizeRefused".to_owned(), refused(seen, said))),
            _ => None,
        })
        .or_else(|| wait::stalled(seen, step));
    let reconciling = wait::reason(step).filter(|_| stalled.is_none());
    [
        match reconciling {
            Some(reason) => condition("Reconciling", true, reason, &wait::message(step)),
            None => condition("Reconciling", false, "Stable", "nothing is under way by itself"),
        },
        match stalled {
            Some((reason, message)) => condition("Stalled", true, &reason, &message),
            None => condition("Stalled", false, "NotStalled", "nothing waits for a person"),
        },
    ]
}

fn refused(seen: &Seen, said: &[String]) -> String {
    let more = said.len().saturating_sub(1);
    let said = said.first().map_or("", String::as_str);
    let said = if more == 0 { said.to_owned() } else { format!("{said}; and {more} claims more") };
    let class = |storage: &Storage| storage.storage_class.clone().unwrap_or_else(|| "the default one".to_owned());
    let spec = &seen.cluster.spec;
    let (data, wal) = (class(&spec.storage), spec.wal_storage.as_ref().map(class));
    let class = match wal {
        Some(wal) if wal != data => format!("{data} for data, {wal} for WAL"),
        _ => data,
    };
    format!(
        "the storage does not let the volumes grow ({said}): if its driver can, set allowVolumeExpansion: true on the StorageClass ({class}), and they grow within a minute; if not, make a new cluster with bootstrap.clone from this one. PostgreSQL runs on"
    )
}

fn storage(seen: &Seen, outcome: &Outcome) -> Condition {
    if let Outcome::CannotGrow(said) = outcome {
        return condition("StorageResized", false, "ResizeRefused", &refused(seen, said));
    }
    match claims::growing(seen) {
        Some((reason, message)) => condition("StorageResized", false, reason, &message),
        None => condition("StorageResized", true, "Resized", "every volume has the size that the spec says"),
    }
}

/// Only of clusters that shall sleep.
fn hibernated(seen: &Seen, step: &Step) -> Option<Condition> {
    seen.cluster.spec.hibernate.then(|| match wait::reason(step) {
        None => condition("Hibernated", true, "Hibernated", &wait::message(step)),
        Some(reason) => condition("Hibernated", false, reason, &wait::message(step)),
    })
}

/// `status.declared`, only if something is declared.
pub(super) fn declared(seen: &Seen) -> Option<DeclaredStatus> {
    let spec = &seen.cluster.spec;
    if spec.roles.is_empty() && spec.databases.is_empty() {
        return None;
    }
    let (wanted, lacking) = declaration::state(seen);
    let report =
        seen.members.iter().find(|m| Some(m.name.as_str()) == seen.leader())?.report.matriarch.declared.as_ref();
    let present = report.filter(|r| wanted["generation"] == r.generation.as_str());
    Some(DeclaredStatus {
        applied: lacking.is_empty() && present.is_some_and(|r| r.failed.is_empty()),
        failed: report.map(|r| r.failed.clone()).unwrap_or_default(),
    })
}

fn declared_state(seen: &Seen) -> Option<Condition> {
    let spec = &seen.cluster.spec;
    if spec.roles.is_empty() && spec.databases.is_empty() {
        return None;
    }
    let no = |reason: &str, message: &str| Some(condition("DeclaredStateApplied", false, reason, message));
    let (_, lacking) = declaration::state(seen);
    if let Some(l) = lacking.first() {
        let message = format!(
            "the password of the role {} is to be in the key {key} of the Secret {name}, which is not there: make it with `kubectl -n {namespace} create secret generic {name} --from-literal={key}=...`; until then the role has the password that it had, or none",
            l.role,
            key = l.key,
            name = l.secret,
            namespace = seen.namespace(),
        );
        return no("PasswordSecretMissing", &message);
    }
    match declared(seen) {
        Some(status) if status.applied => Some(condition(
            "DeclaredStateApplied",
            true,
            "Applied",
            "roles and databases are as the spec declares them",
        )),
        Some(status) if !status.failed.is_empty() => {
            let all: Vec<String> = status.failed.iter().map(|(object, why)| format!("{object}: {why}")).collect();
            no(
                "Failed",
                &format!(
                    "PostgreSQL refuses what spec.roles or spec.databases says, and it is tried again: {}",
                    all.join("; ")
                ),
            )
        }
        _ => no("Applying", "waiting until the leader has applied what is declared"),
    }
}

fn secret_missing(seen: &Seen) -> Option<String> {
    let secret = seen.user_secrets.iter().find(|s| s.lacks.is_some())?;
    let field = if secret.user == "app" { "application" } else { secret.user };
    let username = match secret.user {
        "superuser" => "postgres",
        "replication" => "replicator",
        "rewind" => "rewinder",
        _ => &seen.cluster.spec.application.owner,
    };
    Some(format!(
        "the Secret {name} of spec.secrets.{field} {lacks}: make it with `kubectl -n {namespace} create secret generic {name} \
         --from-literal=username={username} --from-literal=password=...`, or remove spec.secrets.{field} to have one generated; \
         until then the pods stay as they are",
        name = secret.name,
        lacks = secret.lacks.as_deref().unwrap_or_default(),
        namespace = seen.namespace(),
    ))
}

fn condition(type_: &str, holds: bool, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: String::new(),
        observed_generation: None,
    }
}

fn ready_condition(seen: &Seen, ready: i32) -> Condition {
    let wanted = seen.cluster.spec.instances;
    let no = |reason: &str, message: &str| condition("Ready", false, reason, message);
    if let Some(message) = secret_missing(seen) {
        return no("SecretMissing", &message);
    }
    if seen.cluster.spec.hibernate {
        return no("Hibernated", "the cluster sleeps, as spec.hibernate says: write hibernate: false to wake it");
    }
    let fenced: Vec<&str> = seen.members.iter().map(|m| m.name.as_str()).filter(|m| seen.fenced(m)).collect();
    let awake = seen.members.iter().filter(|m| !seen.fenced(&m.name));
    let mut problems: Vec<(&'static str, String)> = awake.filter_map(Member::problem).collect();
    if let Some(lost) = lost::lost(seen) {
        let what = match lost::refusal(seen, &lost) {
            Some(why) => format!("{}; it is not replaced by itself: {why}", lost.what),
            None => format!("{}; it is replaced, and the member copied anew", lost.what),
        };
        problems.push(("VolumeLost", what));
    }
    // What a user has to correct first; then what passes by itself.
    problems.sort_by_key(|(reason, _)| match *reason {
        "VolumeLost" | "ImagePullFailed" => 0,
        "ContainerCreateFailed" => 1,
        "CrashLooping" => 2,
        "Unschedulable" => 3,
        "MemberNotReady" => 4,
        _ => 5,
    });
    if let Some((reason, _)) = problems.first() {
        let all: Vec<&str> = problems.iter().map(|(_, message)| message.as_str()).collect();
        return no(reason, &all.join("; "));
    }
    if seen.leader().is_none() {
        return no("NoPrimary", "no member holds the leader lock");
    }
    if ready < wanted.saturating_sub(count(fenced.len())) {
        return no("MembersMissing", &format!("{ready} of {wanted} members exist and are ready"));
    }
    if !fenced.is_empty() {
        let message = format!("{ready} of {wanted} members are ready; fenced by spec.fenced: {}", fenced.join(", "));
        return condition("Ready", true, "MembersFenced", &message);
    }
    condition("Ready", true, "AllMembersReady", &format!("{ready} of {wanted} members are ready"))
}

fn configuration(seen: &Seen) -> Condition {
    let invalid: Vec<String> = seen
        .members
        .iter()
        .flat_map(|m| &m.report.matriarch.invalid_parameters)
        .map(|(name, why)| format!("{name}: {why}"))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    if !invalid.is_empty() {
        let message = format!(
            "PostgreSQL does not take what spec.postgresql.parameters says, and runs on without it: {}: correct or remove it there",
            invalid.join("; ")
        );
        return condition("ConfigurationApplied", false, "InvalidParameters", &message);
    }
    let waiting: Vec<&str> =
        seen.members.iter().filter(|m| m.report.pending_restart == Some(true)).map(|m| m.name.as_str()).collect();
    if !waiting.is_empty() {
        let message = format!("a setting takes effect when PostgreSQL is restarted on {}", waiting.join(", "));
        return condition("ConfigurationApplied", false, "PendingRestart", &message);
    }
    condition("ConfigurationApplied", true, "Applied", "no member reports a setting that is not in effect")
}
