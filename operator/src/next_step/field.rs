//! `spec.switchover`: acts once for each id, and says in the status what came of it.
//!
//! What was asked is written beside the request, on the `-failover` object and in the same write, so that an operator
//! that dies right afterwards finds it again; what came of it is final as soon as the status says so.

use matriarch_crds::cluster::{SwitchoverState, SwitchoverStatus};
use serde_json::Value;

use super::{Step, serving_leader, switchover};
use crate::observe::Seen;
use crate::plan::locks::{FIELD_ANNOTATION, RESULT_ANNOTATION};

/// A switchover after which nobody has the lock for so many seconds has failed.
const LEADERLESS: i64 = 60;

/// What was asked for by the field last.
struct Asked {
    id: String,
    from: String,
    to: String,
}

fn asked(seen: &Seen) -> Option<Asked> {
    let text = seen.lock_annotation(&seen.names().failover(), FIELD_ANNOTATION)?;
    let value: Value = serde_json::from_str(text).ok()?;
    let field = |key: &str| value[key].as_str().map(str::to_owned);
    Some(Asked { id: field("id")?, from: field("from")?, to: field("to")? })
}

/// How far it is, and the step that it needs.
enum Look {
    Running { from: Option<String>, to: Option<String>, message: String },
    Ask { from: String, to: String },
    Done { from: String, to: String },
    Failed { from: Option<String>, to: Option<String>, message: String },
}

/// None: there is no such wish, or what came of it is known.
fn look(seen: &Seen) -> Option<Look> {
    let wish = seen.cluster.spec.switchover.as_ref()?;
    let known = seen.cluster.status.as_ref().and_then(|s| s.switchover.as_ref());
    if known.is_some_and(|k| k.id == wish.id && k.state != SwitchoverState::Running) {
        return None;
    }
    if let Some(asked) = asked(seen).filter(|a| a.id == wish.id) {
        return Some(follow(seen, asked));
    }
    let to = wish.to.clone();
    let wait = |why: &str| Some(Look::Running { from: None, to: to.clone(), message: why.to_owned() });
    if seen.cluster.spec.hibernate {
        return wait("waits until the cluster wakes");
    }
    if switchover::pending(seen) {
        return wait("waits for the switchover that is under way");
    }
    if let Some(m) = seen.members.iter().find(|m| m.deleting && m.gone_by.is_none_or(|by| by > seen.now)) {
        return wait(&format!("waits until {} is replaced", m.name));
    }
    let Some(leader) = serving_leader(seen) else {
        return wait("waits until the leader is ready");
    };
    let from = leader.name.clone();
    let refuse = |message: String| Some(Look::Failed { from: Some(from.clone()), to: wish.to.clone(), message });
    let Some(name) = &wish.to else {
        return match switchover::candidates(seen, i32::MAX).first() {
            Some(to) => Some(Look::Ask { from, to: to.name.clone() }),
            None => {
                refuse("no standby is ready to take over: nothing was done; write another id to try again".to_owned())
            }
        };
    };
    if *name == from {
        return refuse(format!("{name} leads already: nothing was done; write another id and another member"));
    }
    let Some(member) = seen.members.iter().find(|m| m.name == *name) else {
        let names: Vec<&str> = seen.members.iter().map(|m| m.name.as_str()).collect();
        return refuse(format!(
            "there is no member {name} (there are {}): nothing was done; write another id and one of them",
            names.join(", ")
        ));
    };
    match switchover::unfit(seen, member) {
        Some(why) => refuse(format!("{name} cannot lead now ({why}): nothing was done; write another id to try again")),
        None => Some(Look::Ask { from, to: name.clone() }),
    }
}

/// What became of a request.
fn follow(seen: &Seen, Asked { from, to, .. }: Asked) -> Look {
    if seen.leader() == Some(to.as_str()) {
        return Look::Done { from, to };
    }
    let (old, new) = (Some(from.clone()), Some(to.clone()));
    if switchover::pending(seen) {
        return Look::Running { from: old, to: new, message: "the leader was asked to hand over".to_owned() };
    }
    if let Some(why) = seen.lock_annotation(&seen.names().failover(), RESULT_ANNOTATION) {
        return Look::Failed { from: old, to: new, message: format!("{why}; write another id to try again") };
    }
    let failed = |message: String| Look::Failed { from: old.clone(), to: new.clone(), message };
    let again = "write another id to try again";
    match seen.leader() {
        Some(other) if other != from => failed(format!("{other} took over instead; {again}")),
        // A request that is gone while its leader leads on was taken back.
        Some(_) => failed(format!("{from} leads on; {again}")),
        None if switchover::asked_for(seen).is_some_and(|age| age < LEADERLESS) => {
            Look::Running { from: old, to: new, message: "waiting until the new leader has the lock".to_owned() }
        }
        None => failed("nobody leads: see the condition Ready".to_owned()),
    }
}

/// It was asked for, and what came of it is not known yet.
pub(super) fn unresolved(seen: &Seen) -> bool {
    matches!(look(seen), Some(Look::Running { from: Some(_), .. }))
}

/// Row 6.
pub(super) fn step(seen: &Seen) -> Option<Step> {
    let Look::Ask { from, to } = look(seen)? else { return None };
    let id = seen.cluster.spec.switchover.as_ref().map(|s| s.id.clone());
    Some(Step::Switchover { from, to, reason: "Switchover", why: "spec.switchover asks for it".to_owned(), id })
}

/// `status.switchover`.
pub fn status(seen: &Seen) -> Option<SwitchoverStatus> {
    let known = seen.cluster.status.as_ref().and_then(|s| s.switchover.clone());
    let Some(wish) = &seen.cluster.spec.switchover else { return known };
    let Some(look) = look(seen) else { return known };
    let now = super::wait::second(seen.now);
    let started = known.filter(|k| k.id == wish.id).and_then(|k| k.started_at).unwrap_or_else(|| now.clone());
    let (state, from, to, message) = match look {
        Look::Running { from, to, message } => (SwitchoverState::Running, from, to, message),
        Look::Ask { from, to } => {
            (SwitchoverState::Running, Some(from), Some(to), "the leader is asked to hand over".to_owned())
        }
        Look::Done { from, to } => {
            let message = format!("{to} leads, it took over from {from}");
            (SwitchoverState::Done, Some(from), Some(to), message)
        }
        Look::Failed { from, to, message } => (SwitchoverState::Failed, from, to, message),
    };
    Some(SwitchoverStatus {
        id: wish.id.clone(),
        finished_at: (state != SwitchoverState::Running).then_some(now),
        state,
        from,
        to,
        message: Some(message),
        started_at: Some(started),
    })
}
