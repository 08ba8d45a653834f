//! One member: its pod, and what its agent says about it in the pod's `status` annotation (Patroni's JSON).

mod report;
mod trouble;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use matriarch_crds::names::{AGENT_CONTAINER, POSTGRES_CONTAINER, STATUS_ANNOTATION};
use matriarch_crds::pods::agent_image;

pub use report::{AgentReport, Declared, MatriarchReport};
pub use trouble::Trouble;

use crate::plan::RESTART_ANNOTATION;
use crate::plan::mounted::MOUNTED_ANNOTATION;
use crate::plan::restarts::{RESTARTED_ANNOTATION, Restarted};

/// On a pod: when the operator upgraded its agent last.
pub const UPGRADED_ANNOTATION: &str = "matriarch.dev/agent-upgraded";

/// One member.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Member {
    /// Name of the pod.
    pub name: String,
    /// Number at its end.
    pub ordinal: i32,
    /// Uid of the pod.
    pub uid: String,
    /// When the pod was made.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// By when it shall be gone, if it is being deleted. On a node that does not answer it stays for longer.
    pub gone_by: Option<Timestamp>,
    /// Where it runs; none before it is scheduled.
    pub node: Option<String>,
    /// Its address; none before it is there.
    pub ip: Option<IpAddr>,
    /// Its claims, as its volumes name them.
    pub claims: Vec<String>,
    /// The kubelet says that the container of PostgreSQL does not run, or there is no kubelet yet.
    pub postgres_down: bool,
    /// Clients can use it.
    pub ready: bool,
    /// Since when, if they can.
    pub ready_since: Option<Timestamp>,
    /// Image of the agent in the pod's spec.
    pub agent_image: String,
    /// The kubelet runs the agent with that image by now.
    pub agent_settled: bool,
    /// When the operator gave the pod that image, if it did.
    pub agent_upgraded: Option<Timestamp>,
    /// What of the spec the pod was made with; see [`RESTART_ANNOTATION`].
    pub made_with: Option<String>,
    /// Which state of the mounted objects the kubelet was told of; see [`MOUNTED_ANNOTATION`].
    pub mounted: Option<String>,
    /// For which change the operator had its PostgreSQL restarted last; see [`RESTARTED_ANNOTATION`].
    pub restarted: Option<Restarted>,
    /// What the agent says.
    pub report: AgentReport,
    /// What the kubelet says, if a container cannot run.
    pub trouble: Option<Trouble>,
}

/// Patroni's word for a member whose data directory is being copied.
pub const COPYING: &str = "creating replica";

impl Member {
    /// From the pod.
    pub fn of(pod: Pod) -> Self {
        let agent_image = agent_image(&pod).unwrap_or_default().to_owned();
        let name = pod.metadata.name.unwrap_or_default();
        let spec = pod.spec.unwrap_or_default();
        let annotations = pod.metadata.annotations.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True");
        let (ready, ready_since) = (ready.is_some(), ready.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0));
        let mut containers =
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        let unscheduled = conditions
            .iter()
            .find(|c| c.type_ == "PodScheduled" && c.status == "False")
            .map(|c| Trouble { reason: "Unschedulable", message: c.message.clone().unwrap_or_default() });
        let running =
            status.init_container_statuses.iter().flatten().find(|c| c.name == AGENT_CONTAINER && c.ready).map(|c| {
                let running = c.state.as_ref().and_then(|state| state.running.as_ref());
                (c.image.clone(), running.and_then(|running| running.started_at.as_ref()).map(|at| at.0.as_second()))
            });
        let postgres = status.container_statuses.iter().flatten().find(|c| c.name == POSTGRES_CONTAINER);
        let stopped = postgres.is_some_and(|c| c.state.as_ref().is_none_or(|s| s.running.is_none()));
        let mut member = Self {
            ordinal: name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(i32::MAX),
            uid: pod.metadata.uid.unwrap_or_default(),
            created: pod.metadata.creation_timestamp.map(|t| t.0),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            gone_by: pod.metadata.deletion_timestamp.map(|t| t.0),
            ip: status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()),
            postgres_down: spec.node_name.is_none() || stopped,
            claims: spec
                .volumes
                .iter()
                .flatten()
                .filter_map(|v| v.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone()))
                .collect(),
            ready,
            ready_since,
            agent_image,
            agent_settled: false,
            agent_upgraded: annotations.get(UPGRADED_ANNOTATION).and_then(|t| t.parse().ok()),
            made_with: annotations.get(RESTART_ANNOTATION).cloned(),
            mounted: annotations.get(MOUNTED_ANNOTATION).cloned(),
            restarted: annotations.get(RESTARTED_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()),
            report: annotations.get(STATUS_ANNOTATION).map(|text| report::report(text)).unwrap_or_default(),
            trouble: if ready { None } else { containers.find_map(trouble::trouble).or(unscheduled) },
            node: spec.node_name,
            name,
        };
        // An image of the same content may be reported by its other name for ever, so a later start will do as well; and the
        // agent of a pod that was never upgraded is the one it was made with.
        let upgraded = member.agent_upgraded.map(jiff::Timestamp::as_second);
        member.agent_settled = running.is_some_and(|(image, started)| {
            same_image(&image, &member.agent_image) || upgraded.is_none_or(|at| started.is_some_and(|s| s >= at))
        });
        member
    }

    /// Patroni's word for what a standby does, or PostgreSQL's state.
    pub fn state(&self) -> Option<&str> {
        self.report.replication_state.as_deref().or(self.report.state.as_deref())
    }

    /// Why it is not ready, or will not be, for people; None if it is.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        // It stays ready until its containers have ended.
        if self.deleting {
            return Some(("MemberStopping", format!("{} is being deleted", self.name)));
        }
        // The kubelet says only seconds later that PostgreSQL is gone.
        if self.ready && self.state() != Some(COPYING) {
            return None;
        }
        if let Some(trouble) = &self.trouble {
            return Some((trouble.reason, format!("{}: {}", self.name, trouble.message)));
        }
        let reason = self.report.matriarch.reason.as_deref();
        let state = self.state();
        Some(match (reason, state) {
            (Some(reason), _) => ("MemberNotReady", format!("{}: {reason}", self.name)),
            (None, Some(state)) => ("MemberNotReady", format!("{} is {state}", self.name)),
            (None, None) => ("MemberStarting", format!("{} is starting", self.name)),
        })
    }

    /// Whether it can become primary in a switchover.
    pub fn can_lead(&self) -> bool {
        self.ready && !self.deleting && !self.report.nofailover && self.report.state.as_deref() == Some("running")
    }
}

/// Runtimes report an image by its full name (`docker.io/library/x:1` for `x:1`), and some only by its digest.
fn same_image(reported: &str, wanted: &str) -> bool {
    let last = wanted.rsplit('/').next().unwrap_or(wanted);
    let latest = if last.contains(':') { "" } else { ":latest" };
    reported.starts_with("sha256:") || reported.ends_with(&format!("{last}{latest}")) || wanted.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_same_by_its_full_name() {
        assert!(
            same_image("docker.io/library/sidecar:1", "sidecar:1")
                && same_image("docker.io/x/sidecar:latest", "x/sidecar")
        );
        assert!(same_image("sha256:0a", "sidecar:1") && !same_image("docker.io/library/sidecar:1", "sidecar:2"));
    }

    #[test]
    fn an_agent_has_settled_by_its_image_or_by_its_start_after_the_upgrade() {
        let upgraded = serde_json::json!({(UPGRADED_ANNOTATION): "2026-01-01T10:00:00.7Z"});
        let of = |annotations: &serde_json::Value, image: &str, started: &str| {
            let pod = serde_json::json!({
                "metadata": {"name": "orders-1", "annotations": annotations},
                "spec": {"containers": [], "initContainers": [{"name": "agent", "image": "sidecar:2"}]},
                "status": {"initContainerStatuses": [{"name": "agent", "image": image, "imageID": "", "ready": true,
                    "restartCount": 1, "state": {"running": {"startedAt": started}}}]}
            });
            Member::of(serde_json::from_value(pod).unwrap())
        };
        let member = |image: &str, started: &str| of(&upgraded, image, started);
        assert!(!member("sidecar:1", "2026-01-01T09:00:00Z").agent_settled);
        assert!(member("sidecar:2", "2026-01-01T09:00:00Z").agent_settled);
        // Two tags of one image: the runtime reports either.
        assert!(member("sidecar:1", "2026-01-01T10:00:00Z").agent_settled);
        // Also where nothing was upgraded yet.
        assert!(of(&serde_json::json!({}), "sidecar:1", "2026-01-01T09:00:00Z").agent_settled);
    }

    #[test]
    fn an_image_that_cannot_be_pulled_says_what_to_correct() {
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "orders-1"},
            "status": {"containerStatuses": [{"name": "postgres", "image": "postgrse:17", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}]}
        }))
        .unwrap();
        let (reason, message) = Member::of(pod).problem().unwrap();
        assert_eq!(reason, "ImagePullFailed");
        assert!(message.contains("orders-1: the image postgrse:17 cannot be pulled: correct spec.image"), "{message}");
    }
}
