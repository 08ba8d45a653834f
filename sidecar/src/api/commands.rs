//! Requests that change something or need the core's word: what they ask, and what is wrong with their bodies.

use std::time::Duration;

use matriarch_ha::config::boolean;
use matriarch_ha::core::commands::version_number;
use matriarch_ha::effect::Reply;
use matriarch_ha::event::{Request, RestartOrder};
use matriarch_ha::types::{BadWall, Wall};
use serde_json::{Map, Value, json};

use super::read::first_segment;
use super::seen::Seen;
use super::{Answer, query};

/// For questions that the core answers at once.
pub const AT_ONCE: Duration = Duration::from_secs(10);
/// patronictl looks for this sentence to find that a server is older than itself.
const UNSUPPORTED: &str = "Error code: 501\nMessage: Unsupported method\nError code explanation: HTTPStatus.NOT_IMPLEMENTED \
                           - Server does not support this operation.";

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `POST /switchover`
    Switchover,
    /// `DELETE /switchover`
    CancelSwitchover,
    /// `POST /restart`
    Restart,
    /// `DELETE /restart`
    CancelRestart,
    /// `POST /reinitialize`
    Reinitialize,
    /// `POST /failover`
    Failover,
    /// `POST /election`
    Election,
    /// `POST /failsafe`
    Failsafe,
    /// `PATCH /config`
    PatchConfig,
    /// `PUT /config`
    ReplaceConfig,
    /// `POST /reload`
    Reload,
    /// `POST /sigterm`: for Patroni's own tests on Windows; says yes and does nothing, as there.
    Sigterm,
    /// `POST /citus`: what a coordinator's workers tell it; there is none here.
    Citus,
    /// `POST /mpp`: the same, and nothing to protect.
    Mpp,
}

impl Command {
    /// The command of a method and path.
    pub fn of(method: &str, path: &str) -> Option<Self> {
        Some(match (method, first_segment(path)) {
            ("POST", "switchover") => Self::Switchover,
            ("DELETE", "switchover") => Self::CancelSwitchover,
            ("POST", "restart") => Self::Restart,
            ("DELETE", "restart") => Self::CancelRestart,
            ("POST", "reinitialize") => Self::Reinitialize,
            ("POST", "failover") => Self::Failover,
            ("POST", "election") => Self::Election,
            ("POST", "failsafe") => Self::Failsafe,
            ("PATCH", "config") => Self::PatchConfig,
            ("PUT", "config") => Self::ReplaceConfig,
            ("POST", "reload") => Self::Reload,
            ("POST", "sigterm") => Self::Sigterm,
            ("POST", "citus") => Self::Citus,
            ("POST", "mpp") => Self::Mpp,
            _ => return None,
        })
    }

    /// It says something in its body; what is deleted needs no words.
    pub fn has_body(self) -> bool {
        !matches!(self, Self::CancelSwitchover | Self::CancelRestart | Self::Reload | Self::Sigterm)
    }

    /// Nothing at all is as good as `{}`.
    pub fn body_is_optional(self) -> bool {
        matches!(self, Self::Restart | Self::Reinitialize)
    }
}

/// There is no such method for this path.
pub fn unsupported() -> Answer {
    Answer::text(501, UNSUPPORTED)
}

/// The core's question, or an answer that needs none: what is wrong with the body above all.
pub fn request(seen: &Seen, command: Command, body: &[u8]) -> Result<Request, Answer> {
    match command {
        Command::CancelSwitchover => return Ok(Request::CancelSwitchover),
        Command::CancelRestart => return Ok(Request::CancelRestart),
        // Done at the edge, later, and logged.
        Command::Reload => return Err(Answer::text(202, "reload scheduled")),
        Command::Sigterm => return Err(Answer::text(202, "shutdown scheduled")),
        _ => {}
    }
    let optional = command.body_is_optional();
    let body: Map<String, Value> = match serde_json::from_slice(body) {
        _ if body.is_empty() && optional => Map::new(),
        Ok(Value::Object(body)) if !body.is_empty() || optional => body,
        _ => return Err(Answer::text(400, "the body must be a JSON object that is not empty")),
    };
    let required = |key: &str| {
        text(&body, key)
            .ok_or_else(|| Answer::text(400, format!("the body must have {key:?}, a text that is not empty")))
    };
    match command {
        Command::Election => Ok(Request::Election { candidate: required("candidate")? }),
        Command::Failsafe => {
            let ours = body.get("matriarch").and_then(Value::as_object);
            // A leader that runs Patroni has no pod uid to tell.
            let leader_uid = ours.and_then(|ours| text(ours, "pod_uid")).unwrap_or_default();
            let ttl_ms = ours.and_then(|ours| ours.get("ttl_ms")).and_then(Value::as_u64).unwrap_or(0);
            Ok(Request::Failsafe { leader: required("name")?, leader_uid, ttl_ms })
        }
        Command::Switchover | Command::Failover => switchover(seen, command, &body),
        Command::Restart => restart(seen, &body),
        Command::Reinitialize => {
            Ok(Request::Reinitialize { force: flag(&body, "force"), from_leader: flag(&body, "from_leader") })
        }
        Command::PatchConfig => Ok(Request::PatchConfig(body)),
        Command::ReplaceConfig => Ok(Request::ReplaceConfig(body)),
        Command::Citus | Command::Mpp => Err(Answer::text(200, "OK")),
        Command::CancelSwitchover => Ok(Request::CancelSwitchover),
        Command::CancelRestart => Ok(Request::CancelRestart),
        Command::Reload | Command::Sigterm => Err(unsupported()),
    }
}

/// Patroni's checks of the body, in its order; those that need the state of the cluster are the core's.
fn switchover(seen: &Seen, command: Command, body: &Map<String, Value>) -> Result<Request, Answer> {
    let refuse = |text: &str| Err(Answer::text(400, text));
    let leader = text(body, "leader");
    let candidate = text(body, "candidate").or_else(|| text(body, "member"));
    let scheduled = body.get("scheduled_at").is_some_and(|at| !at.is_null() && at != "");
    let failover = command == Command::Failover;
    if failover && candidate.is_none() {
        return refuse("Failover could be performed only to a specific candidate");
    }
    if !failover && leader.is_none() {
        return refuse("Switchover could be performed only from a specific leader");
    }
    let mut scheduled_at = None;
    if scheduled {
        if failover {
            return refuse("Failover can't be scheduled");
        }
        if seen.view.paused {
            return refuse("Can't schedule switchover in the paused state");
        }
        scheduled_at = Some(schedule(seen, "switchover", body.get("scheduled_at"))?);
    }
    if seen.view.paused && candidate.is_none() {
        return refuse("Switchover is possible only to a specific candidate in a paused state");
    }
    if leader == candidate {
        return refuse("Switchover target and source are the same");
    }
    Ok(Request::Switchover { leader, candidate, scheduled_at })
}

/// A restart's conditions; Patroni's words for what cannot be one.
fn restart(seen: &Seen, body: &Map<String, Value>) -> Result<Request, Answer> {
    let refuse = |text: String| Err(Answer::text(400, text));
    if seen.view.paused && body.contains_key("schedule") {
        return Err(Answer::text(500, "Can't schedule restart in the paused state"));
    }
    let mut order = RestartOrder::default();
    for (key, value) in body {
        match (key.as_str(), value.as_str()) {
            ("schedule", _) => order.schedule = Some(schedule(seen, "restart", Some(value))?),
            ("role", Some(role @ ("primary" | "master" | "standby_leader" | "replica"))) => {
                order.role = Some(role.to_owned());
            }
            ("role", _) => {
                return refuse("PostgreSQL role should be either primary, standby_leader, or replica".to_owned());
            }
            ("postgres_version", Some(version)) if version_number(version).is_some() => {
                order.postgres_version = Some(version.to_owned());
            }
            ("postgres_version", _) => {
                return refuse("PostgreSQL version should be in the first.major.minor format".to_owned());
            }
            ("timeout", _) => match query::milliseconds(&printed(value)) {
                Some(ms) if ms > 0 => order.timeout_ms = Some(ms),
                _ => return refuse("Timeout should be a positive number of seconds".to_owned()),
            },
            // Patroni looks only at whether it is there.
            ("restart_pending", _) => order.restart_pending = true,
            _ => return refuse(format!("Unknown filter for the scheduled restart: {key}")),
        }
    }
    Ok(Request::Restart(order))
}

/// A text as it is, a number as one would write it.
fn printed(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A truth as Patroni reads one; anything else is none.
fn flag(body: &Map<String, Value>, key: &str) -> bool {
    body.get(key).and_then(boolean).unwrap_or(false)
}

/// A moment ahead, or Patroni's codes and sentences.
fn schedule(seen: &Seen, action: &str, at: Option<&Value>) -> Result<Wall, Answer> {
    match at.and_then(Value::as_str).unwrap_or_default().parse::<Wall>() {
        Ok(at) if at <= seen.now.wall => Err(Answer::text(422, format!("Cannot schedule {action} in the past"))),
        Ok(at) => Ok(at),
        Err(BadWall::NoZone) => {
            Err(Answer::text(400, format!("Timezone information is mandatory for the scheduled {action}")))
        }
        Err(bad @ BadWall::Unreadable) => Err(Answer::text(422, format!("Unable to parse scheduled timestamp. {bad}"))),
    }
}

fn text(body: &Map<String, Value>, key: &str) -> Option<String> {
    body.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The core's reply on the wire.
pub fn answer(seen: &Seen, command: Command, reply: Reply) -> Answer {
    match reply {
        Reply::Text { code, text } => {
            let mut answer = Answer::text(code, text);
            if command == Command::Failsafe && code == 200 {
                answer.lsn = seen.standby().map(|standby| standby.received.max(standby.replayed));
            }
            answer
        }
        Reply::Document(document) => Answer::json(200, document),
        Reply::Position(position) => Answer::json(200, json!(position)),
        Reply::Snapshot(snapshot) => Answer::json(200, json!(snapshot)),
    }
}

/// How long the core may take. It answers a switchover or restart when it is done, and has deadlines of its own that are shorter.
pub fn patience(request: &Request) -> Duration {
    match request {
        Request::Switchover { .. } => Duration::from_mins(5),
        // A shutdown, and a start that may have to recover.
        Request::Restart(order) => {
            Duration::from_mins(15).max(2 * Duration::from_millis(order.timeout_ms.unwrap_or(0)))
        }
        _ => AT_ONCE,
    }
}

/// When the core does not answer in time, or no more.
pub fn no_answer(command: Command) -> Answer {
    match command {
        Command::Switchover => Answer::text(503, "Switchover status unknown"),
        Command::Failover => Answer::text(503, "Failover status unknown"),
        Command::Restart => Answer::text(503, "restart status unknown"),
        _ => Answer::text(503, "the agent does not answer"),
    }
}
