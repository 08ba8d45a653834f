//! What is not as it should be, and what is waited for: from a cluster and the time, nothing else.

use jiff::Timestamp;
use serde::Serialize;

use crate::view::{Cluster, Member};
use crate::when;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Not as it should be; clients are served.
    Warn,
    /// Nobody leads.
    Bad,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What, and why.
    pub text: String,
}

/// All of them, the worst first.
pub fn of(cluster: &Cluster, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |level: Level, text: String| found.push(Finding { level, text });
    leader(cluster, now, &mut add);
    for member in &cluster.members {
        about(cluster, member, &mut add);
    }
    let there = i32::try_from(cluster.members.len()).unwrap_or(i32::MAX);
    if there < cluster.wanted && !cluster.hibernated {
        add(Level::Warn, format!("{there} of {} members have a pod", cluster.wanted));
    }
    if !cluster.synchronous_mode.is_empty() && cluster.sync_standbys.is_empty() && cluster.leader.is_some() {
        add(Level::Warn, "no standby confirms commits: only the leader has what it acknowledges".to_owned());
    }
    requests(cluster, &mut add);
    for condition in &cluster.conditions {
        if let Some(level) = level(&condition.type_, &condition.status) {
            let since =
                when::ago(&condition.last_transition_time, now).map(|t| format!(", for {t}")).unwrap_or_default();
            let (kind, status, reason) = (&condition.type_, &condition.status, &condition.reason);
            add(level, format!("{kind} is {status} ({reason}{since}): {}", condition.message));
        }
    }
    if cluster.unobserved {
        add(Level::Note, "the operator has not looked at the newest spec yet".to_owned());
    }
    found.sort_by_key(|one| std::cmp::Reverse(one.level));
    found
}

/// How bad a condition is, if it has to be told. Of some of them `True` is the unusual, of the others `False`.
fn level(kind: &str, status: &str) -> Option<Level> {
    match (kind, status) {
        ("Progressing" | "Hibernated", "True") => Some(Level::Note),
        // Flux's word for `Progressing`.
        ("Progressing" | "Hibernated" | "Reconciling", _) | ("Stalled", "False") => None,
        ("Stalled", _) => Some(Level::Warn),
        (_, "True") => None,
        _ => Some(Level::Warn),
    }
}

fn leader(cluster: &Cluster, now: Timestamp, add: &mut impl FnMut(Level, String)) {
    let Some(leader) = &cluster.leader else {
        if cluster.hibernated {
            return;
        }
        let why = match cluster.identifier.as_str() {
            "uninitialized" | "initializing" => "nobody leads: the cluster is being made".to_owned(),
            _ => "nobody leads: clients cannot write".to_owned(),
        };
        return add(Level::Bad, why);
    };
    if cluster.leading().is_none() {
        add(Level::Bad, format!("{leader} holds the lock and has no pod: the lock is free when its ttl is over"));
    }
    // Two clocks are compared here, so only what no clock explains is told.
    let age =
        cluster.renewed.as_ref().and_then(|at| at.parse::<Timestamp>().ok()).map(|at| now.duration_since(at).as_secs());
    if let (Some(age), Some(ttl)) = (age, cluster.ttl)
        && age > 3 * ttl
        && !cluster.paused
    {
        add(
            Level::Warn,
            format!("{leader} renewed its lock {age} s ago by this machine's clock, and its ttl is {ttl} s"),
        );
    }
}

fn about(cluster: &Cluster, m: &Member, add: &mut impl FnMut(Level, String)) {
    let name = &m.name;
    if m.deleting {
        add(Level::Warn, format!("{name} is being deleted"));
    } else if !m.ready {
        let why = if m.reason.is_empty() { "its agent has not said why yet" } else { &m.reason };
        let state = if m.state.is_empty() { "not started" } else { &m.state };
        let rule = if m.rule.is_empty() { String::new() } else { format!(" [{}]", m.rule) };
        add(Level::Warn, format!("{name} is not ready, it is {state}: {why}{rule}"));
    }
    if let (Some(own), Some(leaders)) = (m.timeline, cluster.timeline)
        && own != leaders
    {
        add(Level::Warn, format!("{name} is on timeline {own}, the leader on {leaders}"));
    }
    for (parameter, why) in &m.invalid_parameters {
        add(Level::Warn, format!("{name} cannot use {parameter}: {why}"));
    }
    if m.pending_restart {
        let changes: Vec<String> = m
            .pending_restart_reason
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, change)| format!("{name} {} -> {}", text(&change["old_value"]), text(&change["new_value"])))
            .collect();
        let why = if changes.is_empty() { String::new() } else { format!(": {}", changes.join(", ")) };
        add(Level::Note, format!("{name} has to be restarted for its settings{why}"));
    }
    if let Some(at) = m.scheduled_restart.as_ref().and_then(|r| r["schedule"].as_str()) {
        add(Level::Note, format!("{name} will be restarted at {at}"));
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn requests(cluster: &Cluster, add: &mut impl FnMut(Level, String)) {
    if cluster.paused {
        let late: Vec<&str> = cluster.members.iter().filter(|m| !m.paused).map(|m| m.name.as_str()).collect();
        let all = if late.is_empty() { String::new() } else { format!("; not yet known to {}", late.join(", ")) };
        add(Level::Note, format!("paused: nobody fails over, nobody starts or stops PostgreSQL by itself{all}"));
    }
    if cluster.hibernated {
        add(Level::Note, "hibernated: `kubectl matriarch wake` starts its pods again".to_owned());
    }
    if !cluster.fenced.is_empty() {
        let names = cluster.fenced.join(", ");
        add(Level::Note, format!("fenced: {names}; `kubectl matriarch unfence` lets PostgreSQL start there again"));
    }
    match &cluster.switchover {
        Some([from, to, at]) => {
            let to = if to.is_empty() { "the best standby" } else { to };
            let from = if from.is_empty() { String::new() } else { format!(" from {from}") };
            let at = if at.is_empty() { "wanted now".to_owned() } else { format!("scheduled at {at}") };
            add(Level::Note, format!("switchover{from} to {to} {at}"));
        }
        None => {
            if let Some(why) = &cluster.refused {
                add(Level::Note, format!("the last switchover was not done: {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_told_when_it_is_the_unusual_way_round() {
        assert_eq!((level("Ready", "True"), level("Ready", "False")), (None, Some(Level::Warn)));
        assert_eq!((level("Stalled", "False"), level("Stalled", "True")), (None, Some(Level::Warn)));
        assert_eq!((level("Progressing", "False"), level("Progressing", "True")), (None, Some(Level::Note)));
        assert_eq!(level("Reconciling", "True"), None);
    }

    #[test]
    fn a_cluster_that_sleeps_is_not_in_trouble() {
        let asleep = Cluster { hibernated: true, wanted: 3, ..Cluster::default() };
        let found = of(&asleep, Timestamp::UNIX_EPOCH);
        assert!(found.iter().all(|f| f.level == Level::Note) && found.len() == 1, "{found:?}");
    }
}
