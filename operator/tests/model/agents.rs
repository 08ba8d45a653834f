//! The agents, as far as the operator meets them: they elect whoever has every acknowledged commit, confirm commits,
//! act on `-failover`, stop what is fenced, and say which settings need a restart.

use crate::world::World;

/// One round of all of them.
pub fn round(w: &mut World) {
    fence(w);
    if w.annotation("orders-config", "initialize").is_none() {
        initialize(w);
    }
    switchover(w);
    elect(w);
    stream(w);
}

fn initialize(w: &mut World) {
    let Some(first) = w.pods.iter().find(|(_, p)| p.up && p.deleting.is_none()).map(|(n, _)| n.clone()) else { return };
    if w.annotation("orders-config", "config").is_none() {
        return;
    }
    w.disks.insert(format!("data-{first}"), 1);
    w.annotate("orders-config", "initialize", Some("7123456789012345678"));
    w.lock(&first);
    lead(w, &first);
    w.acked = 1;
}

fn fence(w: &mut World) {
    if w.annotation("orders-config", "config").is_none_or(|c| !c.contains("fenced")) {
        return;
    }
    let fenced: Vec<String> = w.cluster.spec.fenced.iter().filter(|f| w.pods.contains_key(*f)).cloned().collect();
    for name in fenced {
        w.stop(&name);
    }
}

/// Who may lead: it runs, stays, and has every acknowledged commit.
fn fit(w: &World, name: &str) -> bool {
    w.pods.get(name).is_some_and(|p| p.up && p.deleting.is_none())
        && !w.fenced(name)
        && w.disk(name).is_some_and(|lsn| lsn >= w.acked)
}

fn switchover(w: &mut World) {
    let (Some(from), Some(to)) = (w.annotation("orders-failover", "leader"), w.annotation("orders-failover", "member"))
    else {
        return;
    };
    let Some(leader) = w.serving() else { return };
    if leader == to {
        return clear(w, None);
    }
    if leader != from {
        return clear(w, Some("leader name does not match"));
    }
    let streams = w.pods.get(&to).is_some_and(|p| p.up && p.ready && p.deleting.is_none()) && !w.fenced(&to);
    if !streams {
        return clear(w, Some("the candidate does not stream"));
    }
    // A clean shutdown sends everything to whoever streams.
    let position = w.disk(&leader).unwrap();
    w.disks.insert(format!("data-{to}"), position);
    w.lock(&to);
    lead(w, &to);
    // The former leader comes back as a standby.
    w.start(&leader);
    clear(w, None);
}

/// Somebody takes the request back, or the leader refuses it for a reason of its own.
pub fn refuse(w: &mut World, why: Option<&str>) {
    if w.annotation("orders-failover", "member").is_some() {
        clear(w, why);
    }
}

fn clear(w: &mut World, why: Option<&str>) {
    for key in ["leader", "member"] {
        w.annotate("orders-failover", key, None);
    }
    w.annotate("orders-failover", "matriarch.dev/result", why);
}

fn elect(w: &mut World) {
    if w.serving().is_some()
        || w.annotation("orders-config", "initialize").is_none()
        || w.cluster.spec.paused == Some(true)
    {
        return;
    }
    let best = w.pods.keys().filter(|n| fit(w, n)).max_by_key(|n| w.disk(n)).cloned();
    if let Some(best) = best {
        w.lock(&best);
        lead(w, &best);
    }
}

/// A primary writes what it runs with into the log.
fn lead(w: &mut World, name: &str) {
    if let Some(pod) = w.pods.get_mut(name) {
        pod.control = pod.runs;
    }
}

/// Standbys get what the leader has (a new one a whole copy), and confirm.
fn stream(w: &mut World) {
    let Some(leader) = w.serving() else {
        for pod in w.pods.values_mut() {
            pod.ready = false;
        }
        return;
    };
    let position = w.disk(&leader).unwrap();
    let (runs, now) = (w.pods[&leader].runs, w.now);
    let names: Vec<String> = w.pods.keys().cloned().collect();
    let mut voters = Vec::new();
    for name in names {
        let fenced = w.fenced(&name);
        let pod = w.pods.get_mut(&name).unwrap();
        let was_ready = pod.ready;
        pod.ready = pod.up && pod.node.is_some() && !fenced;
        if !was_ready {
            pod.ready_since = Some(now);
        }
        pod.confirms = pod.ready && was_ready;
        if pod.ready && name != leader {
            if pod.control == 0 {
                // A new pod: its agent looked at pg_control before it started.
                pod.runs = pod.runs.max(runs);
            }
            // One that has less than its primary, after a failover, does not replay what the primary runs with.
            if pod.runs >= runs {
                pod.control = runs;
            }
            w.disks.insert(format!("data-{name}"), position);
            if pod.confirms {
                voters.push(name);
            }
        }
    }
    if w.annotation("orders-sync", "sync_standby").unwrap_or_default() != voters.join(",") {
        w.annotate("orders-sync", "sync_standby", Some(&voters.join(",")));
        w.annotate("orders-sync", "leader", Some(&leader));
    }
}

/// A client commits, if the leader may acknowledge it.
pub fn commit(w: &mut World) {
    let Some(leader) = w.serving() else { return };
    let voters = w.annotation("orders-sync", "sync_standby").unwrap_or_default();
    let voters: Vec<&str> = voters.split(',').filter(|v| !v.is_empty()).collect();
    let confirms = voters.iter().find(|v| w.pods.get(**v).is_some_and(|p| p.up)).map(|v| (*v).to_owned());
    if confirms.is_none() && !voters.is_empty() {
        return; // it waits
    }
    w.acked += 1;
    let position = w.disk(&leader).unwrap().max(w.acked);
    w.acked = position;
    for name in [Some(leader), confirms].into_iter().flatten() {
        w.disks.insert(format!("data-{name}"), position);
    }
}
