//! The members as their pods describe them, and the names that PostgreSQL knows them by.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effect::Peer;
use crate::event::Object;
use crate::tags::Tags;

/// One member, from its pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Pod name.
    pub name: String,
    /// Pod uid.
    pub uid: String,
    /// Pod IP.
    pub ip: Option<String>,
    /// The pod is being deleted.
    pub deleting: bool,
    /// Its `status` annotation, null without one.
    pub status: Value,
    /// Its tags, from there.
    pub tags: Tags,
}

impl Member {
    /// From a pod.
    pub fn from_pod(pod: &Object) -> Self {
        let status: Value =
            pod.annotations.get("status").and_then(|s| serde_json::from_str(s).ok()).unwrap_or(Value::Null);
        Self {
            tags: status.get("tags").map(Tags::parse).unwrap_or_default(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            ip: pod.ip.clone().filter(|ip| !ip.is_empty()),
            deleting: pod.deleting,
            status,
        }
    }

    /// Where its REST API is; none before it has published an api_url.
    pub fn peer(&self) -> Option<Peer> {
        let (host, port) = self.url("api_url")?;
        Some(Peer { member: self.name.clone(), ip: self.address(&host), port, host })
    }

    /// The address to connect to for a host that it published: that host if it is an address, else the pod's; empty where
    /// neither is known, which leaves it to DNS.
    pub fn address(&self, host: &str) -> String {
        if host.parse::<std::net::IpAddr>().is_ok() { host.to_owned() } else { self.ip.clone().unwrap_or_default() }
    }

    /// Host and port of its PostgreSQL.
    pub fn postgres(&self) -> Option<(String, u16)> {
        self.url("conn_url")
    }

    /// It runs Patroni: it has described itself, and not as we do.
    pub fn runs_patroni(&self) -> bool {
        self.status.is_object() && self.status.get("matriarch").is_none()
    }

    /// As stored, for the failsafe topology.
    pub fn api_url(&self) -> Option<&str> {
        self.status.get("api_url").and_then(Value::as_str)
    }

    /// Host and port of `scheme://host:port/path`.
    fn url(&self, key: &str) -> Option<(String, u16)> {
        let url = self.status.get(key)?.as_str()?;
        let authority = url.split_once("://")?.1.split('/').next()?;
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), port.parse().ok()?))
    }
}

/// The name of a member's physical slot, by Patroni's rule: lower case, `-` and `.` become `_`, any other character that a
/// slot may not have becomes `u` and its code point, cut to 63.
pub fn slot_name(member: &str) -> String {
    let slot: String = member
        .to_lowercase()
        .chars()
        .map(|c| match c {
            'a'..='z' | '0'..='9' | '_' => c.to_string(),
            '-' | '.' => "_".to_owned(),
            other => format!("u{:04}", u32::from(other)),
        })
        .collect();
    slot.chars().take(63).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_follow_patroni() {
        assert_eq!(slot_name("Orders-0.x"), "orders_0_x");
        assert_eq!(slot_name("a b"), "au0032b");
        assert_eq!(slot_name(&"a".repeat(80)).len(), 63);
    }

    #[test]
    fn a_member_that_says_nothing_of_ours_runs_patroni() {
        let runs = |status: &str| {
            let annotations = [("status".to_owned(), status.to_owned())].into();
            Member::from_pod(&Object { annotations, ..Object::default() }).runs_patroni()
        };
        assert!(runs(r#"{"role":"replica","version":"4.1.5"}"#));
        assert!(!runs(r#"{"role":"replica","version":"4.1.4","matriarch":{"pod_uid":"u"}}"#));
        assert!(!runs("") && !runs("null"), "a pod that has just been made");
    }

    #[test]
    fn urls_are_taken_apart() {
        let pod = Object {
            name: "a".into(),
            ip: Some("10.0.0.1".into()),
            annotations: [(
                "status".to_owned(),
                r#"{"api_url":"https://a.pods.ns.svc:8008/patroni","conn_url":"postgres://a.pods.ns.svc:5432/postgres"}"#
                    .to_owned(),
            )]
            .into(),
            ..Object::default()
        };
        let member = Member::from_pod(&pod);
        assert_eq!(member.peer().map(|p| (p.host, p.port)), Some(("a.pods.ns.svc".into(), 8008)));
        assert_eq!(member.postgres(), Some(("a.pods.ns.svc".into(), 5432)));
        assert_eq!(member.peer().map(|p| p.ip), Some("10.0.0.1".into()));
    }

    #[test]
    fn an_address_that_a_member_published_wins_over_its_pods() {
        let pod = |ip: Option<&str>, url: &str| Object {
            name: "a".into(),
            ip: ip.map(Into::into),
            annotations: [("status".to_owned(), format!(r#"{{"api_url":"http://{url}/patroni"}}"#))].into(),
            ..Object::default()
        };
        let peer = |ip, url| Member::from_pod(&pod(ip, url)).peer().map(|p| (p.host, p.ip, p.port));
        assert_eq!(peer(Some("10.0.0.1"), "[::1]:1"), Some(("::1".into(), "::1".into(), 1)));
        assert_eq!(peer(None, "127.0.0.1:2"), Some(("127.0.0.1".into(), "127.0.0.1".into(), 2)));
        assert_eq!(peer(None, "db.example:3"), Some(("db.example".into(), String::new(), 3)));
    }
}
