//! What the kubelet is told.

use super::*;

fn alive(view: &View, site: &Site) -> bool {
    let answer = get(view, site, "/liveness");
    assert_eq!(head(view, site, "/liveness"), answer);
    answer.code == 200
}

fn ready(view: &View) -> bool {
    get(view, &site(), "/readiness").code == 200
}

#[test]
fn an_agent_lives_while_its_cycles_end() {
    let ago = |seconds: u64| Boot(NOW.boot.0 - seconds * SECOND);
    for (view, seconds, expected) in [
        (leader(), 9, true),
        (leader(), 10, false),
        (standby(), 19, true),
        (standby(), 20, false),
        (View { paused: true, ..leader() }, 900, true),
    ] {
        assert_eq!(alive(&View { cycle_at: ago(seconds), ..view }, &site()), expected, "{seconds} s");
    }
}

#[test]
fn an_agent_that_has_just_started_lives() {
    let mut site = site();
    site.started = Boot(NOW.boot.0 - 5 * SECOND);
    assert!(alive(&View::default(), &site));
    site.started = Boot(NOW.boot.0 - 61 * SECOND);
    assert!(!alive(&View::default(), &site));
}

#[test]
fn a_leader_is_ready_when_it_accepts_connections() {
    assert!(ready(&leader()));
    assert!(!ready(&View { server: None, ..leader() }));
    assert!(!ready(&View { leader_until: NOW.boot, ..leader() }));
    assert!(!ready(&View { leader: false, ..leader() }));
    assert!(ready(&View { leader: false, paused: true, ..leader() }));
    let promoting = View { leader: true, leader_until: Boot(NOW.boot.0 + SECOND), ..standby() };
    assert!(!ready(&promoting));
}

#[test]
fn a_standby_is_ready_when_it_streams_and_is_near() {
    assert!(ready(&standby()));
    assert!(!ready(&View { leader_lsn: Lsn(2_000_000), ..standby() }));
    assert!(!ready(&View { server: None, state: "starting".into(), ..standby() }));
    let mut silent = standby();
    silent.server.as_mut().unwrap().streaming = false;
    assert!(!ready(&silent));
    assert!(ready(&View { unlocked: true, ..silent.clone() }), "during a failover nobody streams");
    let deaf = View { unlocked: true, store_seen: Boot(1), ..silent };
    assert!(!ready(&deaf), "neither leader nor store");
}

#[test]
fn a_probe_may_have_a_limit_of_its_own() {
    for (path, code) in [
        ("/readiness?lag=99", 503),
        ("/readiness?lag=100", 200),
        ("/readiness?lag=0&mode=write", 200),
        ("/readiness?lag=0&mode=apply", 503),
    ] {
        assert_eq!(get(&standby(), &site(), path).code, code, "{path}");
    }
}
