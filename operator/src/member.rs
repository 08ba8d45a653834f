//! One member: its pod, and what its agent says about it in the pod's `status` annotation (Patroni's JSON).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use matriarch_crds::names::{AGENT_CONTAINER, STATUS_ANNOTATION};
use serde_json::Value;

use crate::plan::RESTART_ANNOTATION;

/// On a pod: when the operator upgraded its agent last.
pub const UPGRADED_ANNOTATION: &str = "matriarch.dev/agent-upgraded";

/// The `status` annotation, as far as the operator needs it. Unknown and malformed fields are ignored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentReport {
    /// Patroni's state of PostgreSQL.
    pub state: Option<String>,
    /// primary, replica, …
    pub role: Option<String>,
    /// Absolute LSN, in bytes.
    pub xlog_location: Option<i64>,
    /// Timeline.
    pub timeline: Option<i64>,
    /// `streaming` or `in archive recovery`.
    pub replication_state: Option<String>,
    /// PostgreSQL has to be restarted for a setting.
    pub pending_restart: Option<bool>,
    /// What Patroni does not have.
    pub matriarch: MatriarchReport,
}

/// The part of the annotation that is Matriarch's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MatriarchReport {
    /// Id of the rule that holds.
    pub rule: Option<Value>,
    /// Why the member is where it is, for people.
    pub reason: Option<String>,
    /// Settings that PostgreSQL does not take, and why.
    pub invalid_parameters: BTreeMap<String, String>,
    /// PostgreSQL's version: `170004` or `"17.4"`.
    pub server_version: Option<Value>,
}

/// A container that cannot run, in the kubelet's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word for programs.
    pub reason: &'static str,
    /// What the kubelet or the scheduler said.
    pub message: String,
}

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
    /// Clients can use it.
    pub ready: bool,
    /// Image of the agent in the pod's spec.
    pub agent_image: String,
    /// The kubelet runs the agent with that image by now.
    pub agent_settled: bool,
    /// When the operator gave the pod that image, if it did.
    pub agent_upgraded: Option<Timestamp>,
    /// What of the spec the pod was made with; see [`RESTART_ANNOTATION`].
    pub made_with: Option<String>,
    /// What the agent says.
    pub report: AgentReport,
    /// What the kubelet says, if a container cannot run.
    pub trouble: Option<Trouble>,
}

impl Member {
    /// From the pod.
    pub fn of(pod: Pod) -> Self {
        let name = pod.metadata.name.unwrap_or_default();
        let annotations = pod.metadata.annotations.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
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
        let mut member = Self {
            ordinal: name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(i32::MAX),
            uid: pod.metadata.uid.unwrap_or_default(),
            created: pod.metadata.creation_timestamp.map(|t| t.0),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            ready,
            agent_image: pod
                .spec
                .iter()
                .flat_map(|s| s.init_containers.iter().flatten())
                .find(|c| c.name == AGENT_CONTAINER)
                .and_then(|c| c.image.clone())
                .unwrap_or_default(),
            agent_settled: false,
            agent_upgraded: annotations.get(UPGRADED_ANNOTATION).and_then(|t| t.parse().ok()),
            made_with: annotations.get(RESTART_ANNOTATION).cloned(),
            report: annotations.get(STATUS_ANNOTATION).map(|text| report(text)).unwrap_or_default(),
            trouble: if ready { None } else { containers.find_map(trouble).or(unscheduled) },
            name,
        };
        // An image of the same content may be reported by its other name for ever, so a later start will do as well.
        let upgraded = member.agent_upgraded.map(jiff::Timestamp::as_second);
        member.agent_settled = running.is_some_and(|(image, started)| {
            same_image(&image, &member.agent_image) || upgraded.is_some_and(|at| started.is_some_and(|s| s >= at))
        });
        member
    }

    /// Patroni's word for what a standby does, or PostgreSQL's state.
    pub fn state(&self) -> Option<&str> {
        self.report.replication_state.as_deref().or(self.report.state.as_deref())
    }

    /// Why it is not ready, for people; None if it is.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        if self.ready {
            return None;
        }
        if self.deleting {
            return Some(("MemberStopping", format!("{} is being deleted", self.name)));
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
        self.ready && !self.deleting && self.report.state.as_deref() == Some("running")
    }
}

/// Runtimes report an image by its full name (`docker.io/library/x:1` for `x:1`), and some only by its digest.
fn same_image(reported: &str, wanted: &str) -> bool {
    let last = wanted.rsplit('/').next().unwrap_or(wanted);
    let latest = if last.contains(':') { "" } else { ":latest" };
    reported.starts_with("sha256:") || reported.ends_with(&format!("{last}{latest}")) || wanted.contains('@')
}

/// Fields are taken one by one, so that one of an unexpected type does not hide the others.
fn report(text: &str) -> AgentReport {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return AgentReport::default() };
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let own = &value["matriarch"];
    AgentReport {
        state: text(&value["state"]),
        role: text(&value["role"]),
        xlog_location: value["xlog_location"].as_i64(),
        timeline: value["timeline"].as_i64(),
        replication_state: text(&value["replication_state"]),
        pending_restart: value["pending_restart"].as_bool(),
        matriarch: MatriarchReport {
            rule: own.get("rule").cloned(),
            reason: text(&own["reason"]).filter(|r| !r.is_empty()),
            invalid_parameters: own["invalid_parameters"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), text(v).unwrap_or_else(|| v.to_string())))
                .collect(),
            server_version: own.get("server_version").cloned(),
        },
    }
}

fn trouble(status: &ContainerStatus) -> Option<Trouble> {
    let state = status.state.as_ref()?;
    let waiting = state.waiting.as_ref()?;
    let kubelet = waiting.message.clone().unwrap_or_default();
    let (container, image) = (&status.name, &status.image);
    let (reason, advice) = match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => (
            "ImagePullFailed",
            format!(
                "the image {image} cannot be pulled: correct spec.image (or the operator's sidecar image), or give spec.imagePullSecrets"
            ),
        ),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            ("ContainerCreateFailed", format!("the container {container} cannot be started from the image {image}"))
        }
        "CrashLoopBackOff" => {
            let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
            let exit = last.map(|t| format!(" (exit code {})", t.exit_code)).unwrap_or_default();
            (
                "CrashLooping",
                format!(
                    "the container {container} keeps failing{exit}: look at `kubectl logs -c {container}` of the pod"
                ),
            )
        }
        _ => return None,
    };
    // Of a crash loop the kubelet says only how long it waits now, which would change the status each time.
    let message = if kubelet.is_empty() || reason == "CrashLooping" {
        advice
    } else {
        format!("{advice}; the kubelet says: {kubelet}")
    };
    Some(Trouble { reason, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_fields_of_unexpected_types() {
        let r = report(
            r#"{"state":"running","timeline":"x","xlog_location":7,"matriarch":{"reason":"why","invalid_parameters":{"a":"b"}}}"#,
        );
        assert_eq!((r.state.as_deref(), r.timeline, r.xlog_location), (Some("running"), None, Some(7)));
        assert_eq!(r.matriarch.reason.as_deref(), Some("why"));
        assert_eq!(r.matriarch.invalid_parameters["a"], "b");
        assert_eq!(report("postgres://old"), AgentReport::default());
    }

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
        let member = |image: &str, started: &str| {
            let pod = serde_json::json!({
                "metadata": {"name": "orders-1", "annotations": {(UPGRADED_ANNOTATION): "2026-01-01T10:00:00.7Z"}},
                "spec": {"containers": [], "initContainers": [{"name": "agent", "image": "sidecar:2"}]},
                "status": {"initContainerStatuses": [{"name": "agent", "image": image, "imageID": "", "ready": true,
                    "restartCount": 1, "state": {"running": {"startedAt": started}}}]}
            });
            Member::of(serde_json::from_value(pod).unwrap())
        };
        assert!(!member("sidecar:1", "2026-01-01T09:00:00Z").agent_settled);
        assert!(member("sidecar:2", "2026-01-01T09:00:00Z").agent_settled);
        // Two tags of one image: the runtime reports either.
        assert!(member("sidecar:1", "2026-01-01T10:00:00Z").agent_settled);
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
