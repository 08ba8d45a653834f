//! Positions as they are now. Members publish their state when it changes, their positions only along with that; the leader
//! sees every position, so its agent is asked where the user may.

use std::time::Duration;

use serde_json::Value;

use crate::ctl;
use crate::store::Store;
use crate::view::Cluster;

/// A screen that comes late is worse than one that says how old its numbers are.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the leader's agent, and says so in the cluster; what cannot be had is left as it is stored.
pub async fn overlay(store: &Store, cluster: &mut Cluster) {
    let Some(leader) = cluster.leader.clone() else { return };
    match ctl::ask(store, &leader, "GET", "/cluster", None, PATIENCE).await {
        Ok(answer) if answer.fine() => apply(cluster, &answer.body),
        Ok(answer) => cluster.positions = format!("as last published: the agent of {leader} said {}", answer.text()),
        Err(error) if error.forbidden() => {
            "as last published: you may not get and create pods/exec".clone_into(&mut cluster.positions);
        }
        Err(error) => cluster.positions = format!("as last published: {error}"),
    }
}

/// `GET /cluster` of the leader.
pub fn apply(cluster: &mut Cluster, document: &Value) {
    "now".clone_into(&mut cluster.positions);
    for row in document["members"].as_array().into_iter().flatten() {
        let Some(member) = cluster.members.iter_mut().find(|m| row["name"] == m.name.as_str()) else { continue };
        let leads = cluster.leader.as_deref() == Some(&member.name);
        member.lsn = row["lsn"].as_str().filter(|lsn| *lsn != "unknown").map(str::to_owned).or(member.lsn.take());
        if !leads {
            member.lag = row["lag"].as_i64().or(member.lag);
            member.replay_lag = row["replay_lag"].as_i64().or(member.replay_lag);
        }
    }
}
