//! The quorum planner and the takeover under every interruption; each protection is seen to be needed.

use crate::full;
use crate::quorum_model::Bounds;
use crate::quorum_names::Wish::{Off, Priority, Quorum};
use crate::search::explore;

#[test]
fn one_leader_never_endangers_a_commit() {
    let bounds = Bounds {
        wishes: if full() { &[Quorum(1), Quorum(2)] } else { &[Quorum(1)] },
        lsn: if full() { 2 } else { 1 },
        postmaster_crashes: 1,
        agent_crashes: 1,
        config_changes: u8::from(full()),
        ..Bounds::default()
    };
    explore(&bounds).nothing("three members, crashes of the leader and of its agent");
}

#[test]
fn more_standbys_and_other_counts_never_endanger_a_commit() {
    let (members, lsn) = if full() { (4, 2) } else { (4, 1) };
    let bounds =
        Bounds { members, lsn, wishes: &[Quorum(1), Quorum(2), Quorum(3)], config_changes: 1, ..Bounds::default() };
    explore(&bounds).nothing("four members, one to three copies");
    let bounds = Bounds { members: 5, lsn: 1, ..Bounds::default() };
    explore(&bounds).nothing("five members");
}

#[test]
fn an_election_never_loses_a_commit() {
    let bounds = Bounds { elections: if full() { 2 } else { 1 }, lsn: 1, ..Bounds::default() };
    explore(&bounds).nothing("three members, the leader changes");
}

#[test]
fn quorum_off_and_on_again_never_loses_a_commit() {
    let bounds = Bounds { wishes: &[Off, Quorum(1)], config_changes: 2, lsn: 1, ..Bounds::default() };
    explore(&bounds).nothing("three members, quorum on and off");
}

#[test]
fn a_change_of_the_mode_never_loses_a_commit() {
    let bounds = Bounds { wishes: &[Priority(1), Quorum(1), Off], config_changes: 2, lsn: 1, ..Bounds::default() };
    explore(&bounds).nothing("three members, all modes");
    let bounds =
        Bounds { wishes: &[Priority(1), Priority(2)], elections: 1, config_changes: 1, lsn: 1, ..Bounds::default() };
    explore(&bounds).nothing("three members, priority mode");
}

/// A search that finds nothing proves little unless it finds what is there.
#[test]
fn every_protection_is_needed() {
    let one = || Bounds { postmaster_crashes: 1, agent_crashes: 1, ..Bounds::default() };
    let caught = |what: &str, bounds: &Bounds| explore(bounds).caught(what);
    caught("q shrinks before the standbys have caught up", &Bounds { catch_up: false, ..one() });
    caught("a write of /sync lands after the next setting", &Bounds { settle: false, ..one() });
    caught("a written setting is loaded after the next /sync", &Bounds { written: false, ..one() });
    caught("a restart takes the setting from what is seen of /sync", &Bounds { restart: false, ..one() });
    let election = || Bounds { elections: 1, lsn: 1, ..Bounds::default() };
    caught("voters go on streaming", &Bounds { cut: false, ..election() });
    caught("own /sync is not claimed anew", &Bounds { claim: false, postmaster_crashes: 1, ..election() });
    let off = Bounds { by_sync: false, wishes: &[Off, Quorum(1)], config_changes: 1, ..election() };
    caught("the configuration says that no votes are needed", &off);
}
