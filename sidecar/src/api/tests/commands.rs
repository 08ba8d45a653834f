//! Who may change something, and which bodies are refused before the core sees them.

use matriarch_ha::effect::Reply;
use matriarch_ha::event::{Request, RestartOrder};

use super::*;
use crate::api::commands::{Command, answer, request, unsupported};
use crate::api::{Answer, Body};

#[test]
fn what_is_not_there_says_so_in_the_words_that_patronictl_looks_for() {
    for (method, path) in [("DELETE", "/failover"), ("PUT", "/primary"), ("POST", "/"), ("TRACE", "/config")] {
        assert_eq!(Command::of(method, path), None, "{method} {path}");
    }
    let Answer { code: 501, body: Body::Text(text), .. } = unsupported() else { panic!() };
    assert!(text.contains("Server does not support this operation"));
}

fn ask(view: &View, command: Command, body: &str) -> Result<Request, (u16, String)> {
    let site = site();
    request(&Seen { view, now: NOW, site: &site }, command, body.as_bytes()).map_err(|answer| match answer.body {
        Body::Text(text) => (answer.code, text),
        other => panic!("{other:?}"),
    })
}

#[test]
fn bodies_are_checked_in_patronis_order() {
    use Command::{Election, Failover, Failsafe, Restart, Switchover};
    for (command, paused, body, code, text) in [
        (Switchover, false, "", 400, "the body must be"),
        (Switchover, false, "{}", 400, "the body must be"),
        (Switchover, false, "[1]", 400, "the body must be"),
        (Failover, false, r#"{"leader":"a"}"#, 400, "Failover could be performed only to a specific candidate"),
        (Switchover, false, r#"{"candidate":"b"}"#, 400, "Switchover could be performed only from a specific leader"),
        (Failover, false, r#"{"candidate":"b","scheduled_at":"x"}"#, 400, "Failover can't be scheduled"),
        (
            Switchover,
            true,
            r#"{"leader":"a","scheduled_at":"x"}"#,
            400,
            "Can't schedule switchover in the paused state",
        ),
        (
            Switchover,
            false,
            r#"{"leader":"a","scheduled_at":"x"}"#,
            422,
            "Unable to parse scheduled timestamp. It should be",
        ),
        (
            Switchover,
            false,
            r#"{"leader":"a","scheduled_at":"2034-07-02T11:06"}"#,
            400,
            "Timezone information is mandatory for the scheduled switchover",
        ),
        (
            Switchover,
            false,
            r#"{"leader":"a","scheduled_at":"2014-07-02T11:06Z"}"#,
            422,
            "Cannot schedule switchover in the past",
        ),
        (
            Switchover,
            true,
            r#"{"leader":"a"}"#,
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ),
        (Switchover, false, r#"{"leader":"a","candidate":"a"}"#, 400, "Switchover target and source are the same"),
        (
            Restart,
            false,
            r#"{"role":"x"}"#,
            400,
            "PostgreSQL role should be either primary, standby_leader, or replica",
        ),
        (
            Restart,
            false,
            r#"{"postgres_version":"x"}"#,
            400,
            "PostgreSQL version should be in the first.major.minor format",
        ),
        (Restart, false, r#"{"timeout":"0s"}"#, 400, "Timeout should be a positive number of seconds"),
        (Restart, false, r#"{"colour":1}"#, 400, "Unknown filter for the scheduled restart: colour"),
        (Restart, false, r#"{"schedule":"2014-07-02T11:06Z"}"#, 422, "Cannot schedule restart in the past"),
        (Failsafe, false, r#"{"leader":"a"}"#, 400, "the body must have \"name\""),
        (Restart, true, r#"{"schedule":null}"#, 500, "Can't schedule restart in the paused state"),
        (Election, false, r#"{"candidate":1}"#, 400, "the body must have \"candidate\""),
    ] {
        let (found, sentence) = ask(&View { paused, ..leader() }, command, body).unwrap_err();
        assert_eq!(found, code, "{command:?} {body}");
        assert!(sentence.starts_with(text), "{command:?} {body}: {sentence}");
    }
}

#[test]
fn good_bodies_become_questions_to_the_core() {
    let some = |text: &str| Some(text.to_owned());
    for (command, body, expected) in [
        (
            Command::Switchover,
            r#"{"leader":"a","candidate":"b","scheduled_at":null}"#,
            Request::Switchover { leader: some("a"), candidate: some("b"), scheduled_at: None },
        ),
        (
            Command::Switchover,
            r#"{"leader":"a","scheduled_at":"2034-07-02T11:06:00+02:00"}"#,
            Request::Switchover {
                leader: some("a"),
                candidate: None,
                scheduled_at: "2034-07-02T09:06:00Z".parse().ok(),
            },
        ),
        (Command::CancelSwitchover, "", Request::CancelSwitchover),
        (Command::CancelRestart, "", Request::CancelRestart),
        (Command::Restart, "", Request::Restart(RestartOrder::default())),
        (
            Command::Restart,
            r#"{"role":"replica","postgres_version":"15.4","timeout":"2min","restart_pending":true}"#,
            Request::Restart(RestartOrder {
                schedule: None,
                role: some("replica"),
                postgres_version: some("15.4"),
                timeout_ms: Some(120_000),
                restart_pending: true,
            }),
        ),
        (Command::Reinitialize, "{}", Request::Reinitialize { force: false, from_leader: false }),
        (Command::Reinitialize, r#"{"force":true}"#, Request::Reinitialize { force: true, from_leader: false }),
        (
            Command::Failover,
            r#"{"member":"b"}"#,
            Request::Switchover { leader: None, candidate: some("b"), scheduled_at: None },
        ),
        (Command::Election, r#"{"candidate":"b"}"#, Request::Election { candidate: "b".into() }),
        (
            Command::Failsafe,
            r#"{"name":"a","conn_url":"x","api_url":"y","slots":{}}"#,
            Request::Failsafe { leader: "a".into(), leader_uid: String::new(), ttl_ms: 0 },
        ),
    ] {
        assert_eq!(ask(&leader(), command, body), Ok(expected), "{body}");
    }
}

#[test]
fn an_accepted_failsafe_call_tells_where_the_standby_is() {
    let (site, view) = (site(), standby());
    let seen = Seen { view: &view, now: NOW, site: &site };
    let accepted = Reply::Text { code: 200, text: "Accepted".into() };
    assert_eq!(answer(&seen, Command::Failsafe, accepted).lsn, Some(Lsn(1000)));
    let refused = Reply::Text { code: 500, text: "Running as a leader".into() };
    assert_eq!(answer(&seen, Command::Failsafe, refused).lsn, None);
}
