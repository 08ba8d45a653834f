//! Tests of the planner: every state on every way is safe, and every way ends.

use super::*;

fn state(leader: &str, voters: &[&str], quorum: usize) -> SyncState {
    SyncState { leader: Some(leader.into()), voters: voters.iter().map(|v| (*v).into()).collect(), quorum }
}

fn any(n: usize, names: &[&str]) -> SyncNames {
    SyncNames { first: false, n, names: names.iter().map(|v| (*v).into()).collect() }
}

/// What a walk is made with.
#[derive(Clone, Copy)]
struct Wish<'a> {
    mode: SyncMode,
    count: usize,
    strict: bool,
    streaming: &'a [&'a str],
}

const QUORUM: Wish<'static> = Wish { mode: SyncMode::Quorum, count: 1, strict: false, streaming: &[] };
const PRIORITY: Wish<'static> = Wish { mode: SyncMode::Priority, ..QUORUM };

fn step(sync: &SyncState, guc: &SyncNames, wish: Wish<'_>, flushed: u64) -> Step {
    let streaming: Vec<(String, Lsn)> = wish.streaming.iter().map(|s| ((*s).to_owned(), Lsn(flushed))).collect();
    next_step(&Replication {
        leader: "a",
        sync,
        settled: true,
        in_force: guc,
        written: Some(guc),
        in_force_since: Lsn(100),
        streaming: &streaming,
        mode: wish.mode,
        count: wish.count,
        strict: wish.strict,
    })
}

/// From the definition, by trying all sets: a winner with its votes and an acknowledgement share a member.
fn safe_by_definition(sync: &SyncState, guc: &SyncNames) -> bool {
    let all = ["a", "b", "c", "d", "e"];
    let sets = |n: usize| (0..1_usize << n).map(move |bits| (0..n).filter(|i| bits >> i & 1 == 1).collect::<Vec<_>>());
    for winners in sets(all.len()) {
        let names: BTreeSet<String> = winners.iter().map(|i| all[*i].to_owned()).collect();
        if !names.iter().any(|candidate| elected(sync, candidate, &names)) {
            continue;
        }
        for acks in sets(all.len()) {
            let standbys: Vec<&str> = acks.iter().map(|i| all[*i]).filter(|m| *m != "a").collect();
            let counted = standbys.iter().filter(|m| guc.is_star() || guc.names.iter().any(|n| n == **m)).count();
            let acknowledged = guc.n == 0 || counted >= guc.n;
            let shared = names.contains("a") || standbys.iter().any(|m| names.contains(*m));
            if acknowledged && !shared {
                return false;
            }
        }
    }
    true
}

/// Walks to the steady state; every state on the way is safe.
fn walk(mut sync: SyncState, mut guc: SyncNames, wish: Wish<'_>) -> (SyncState, SyncNames) {
    for _ in 0..30 {
        match step(&sync, &guc, wish, 100) {
            Step::Steady => return (sync, guc),
            Step::Sync(s) => {
                assert_ne!(s, sync, "a step that changes nothing");
                sync = s;
            }
            Step::Names(n) => {
                assert_ne!(n, guc, "a step that changes nothing");
                guc = n;
            }
            Step::Wait(w) => panic!("waits: {w}"),
        }
        let voters: Set = sync.voters.iter().map(String::as_str).collect();
        assert!(safe(&voters, sync.quorum, &guc), "unsafe: {sync:?} {guc:?}");
    }
    panic!("no steady state: {sync:?} {guc:?}");
}

#[test]
fn safety_is_what_its_definition_says() {
    let subsets: [&[&str]; 6] = [&[], &["b"], &["b", "c"], &["c", "d"], &["b", "c", "d"], &["b", "c", "d", "e"]];
    for voters in subsets {
        for q in 0..=voters.len() {
            for names in subsets {
                for n in 0..=names.len() {
                    let (sync, guc) = (state("a", voters, q), any(n, names));
                    let set: Set = voters.iter().copied().collect();
                    assert_eq!(safe(&set, q, &guc), safe_by_definition(&sync, &guc), "{sync:?} {guc:?}");
                }
            }
            // Where all members there are vote, an unknown standby is one of them: only here.
            let set: Set = voters.iter().copied().collect();
            let star = SyncNames::star(true);
            assert!(!safe(&set, q, &star) || safe_by_definition(&state("a", voters, q), &star));
            assert!(voters.len() == 4 || safe(&set, q, &star) == safe_by_definition(&state("a", voters, q), &star));
        }
    }
}

#[test]
fn every_way_from_every_wish_to_every_other_is_safe_and_ends() {
    let sets: [&[&str]; 5] = [&[], &["b"], &["b", "c"], &["c", "d"], &["b", "c", "d"]];
    let mut wishes = Vec::new();
    for mode in [SyncMode::Off, SyncMode::Priority, SyncMode::Quorum] {
        for strict in [false, true] {
            for count in [1, 2] {
                wishes.extend(sets.map(|streaming| Wish { mode, count, strict, streaming }));
            }
        }
    }
    for from in &wishes {
        let (sync, guc) = walk(SyncState::default(), SyncNames::default(), *from);
        for to in &wishes {
            let (sync, guc) = walk(sync.clone(), guc.clone(), *to);
            // Strict: never without a standby.
            assert!(!to.strict || to.mode == SyncMode::Off || guc.n > 0);
            let (mut cut_sync, mut cut_guc) = (sync, guc);
            // Cut off in the middle, and sent elsewhere.
            for _ in 0..2 {
                match step(&cut_sync, &cut_guc, *from, 100) {
                    Step::Sync(s) => cut_sync = s,
                    Step::Names(n) => cut_guc = n,
                    Step::Steady | Step::Wait(_) => {}
                }
                walk(cut_sync.clone(), cut_guc.clone(), *to);
            }
        }
    }
}

#[test]
fn from_nothing_to_two_standbys_and_back() {
    let (sync, guc) = walk(SyncState::default(), any(0, &[]), Wish { streaming: &["b", "c"], ..QUORUM });
    assert_eq!(sync, state("a", &["b", "c"], 1));
    assert_eq!(guc.guc(), r#"ANY 1 ("b","c")"#);
    let (sync, guc) = walk(sync, guc, Wish { streaming: &["b"], ..QUORUM });
    assert_eq!((&sync, guc.guc()), (&state("a", &["b"], 0), r#"ANY 1 ("b")"#.to_owned()));
    let (sync, guc) = walk(sync, guc, QUORUM);
    assert_eq!((&sync, guc.guc()), (&state("a", &[], 0), String::new()));
}

#[test]
fn priority_mode_adds_to_the_setting_first_and_removes_from_the_state_first() {
    let both = Wish { count: 2, streaming: &["b", "c"], ..PRIORITY };
    let alone = state("a", &["b"], 0);
    let (one, two) = (SyncNames::all_of(vec!["b".into()]), SyncNames::all_of(vec!["b".into(), "c".into()]));
    assert_eq!(step(&alone, &one, both, 100), Step::Names(two.clone()));
    assert_eq!(step(&alone, &two, both, 100), Step::Sync(state("a", &["b", "c"], 0)));
    // Not before it has what was acknowledged without it; who was listed stays.
    assert!(matches!(step(&alone, &two, both, 99), Step::Wait(_)));
    let less = Wish { count: 2, streaming: &["b"], ..PRIORITY };
    assert_eq!(step(&state("a", &["b", "c"], 0), &two, less, 100), Step::Sync(state("a", &["b"], 0)));
    assert_eq!(step(&alone, &two, less, 100), Step::Names(one));
}

#[test]
fn strict_mode_waits_for_anybody_when_nobody_is_known() {
    for (wish, guc) in [(PRIORITY, "*"), (QUORUM, "ANY 1 (*)")] {
        let strict = Wish { strict: true, ..wish };
        let (sync, names) = walk(SyncState::default(), SyncNames::default(), Wish { streaming: &["b"], ..strict });
        let (sync, names) = walk(sync, names, strict);
        assert_eq!((names.guc().as_str(), sync), (guc, state("a", &[], 0)));
    }
}

#[test]
fn a_new_standby_is_not_trusted_before_it_has_caught_up() {
    let wish = Wish { streaming: &["b"], ..QUORUM };
    assert!(matches!(step(&state("a", &["b"], 1), &any(1, &["b"]), wish, 99), Step::Wait(_)));
}

#[test]
fn a_new_voter_makes_no_election_easier() {
    // b and c have not flushed yet what the leader acknowledged alone, so nobody but it may lead; d comes.
    let wish = Wish { streaming: &["b", "c", "d"], ..QUORUM };
    let step = step(&state("a", &["b", "c"], 2), &any(1, &["b", "c"]), wish, 99);
    assert_eq!(step, Step::Sync(state("a", &["b", "c", "d"], 3)));
}

#[test]
fn a_setting_of_somebody_else_is_replaced_before_anybody_may_lead_on_it() {
    let foreign = SyncNames::parse("FIRST 1 (x)");
    let wish = Wish { streaming: &["b"], ..QUORUM };
    assert_eq!(step(&state("a", &["b"], 0), &foreign, wish, 100), Step::Sync(state("a", &["b"], 1)));
    assert_eq!(step(&state("a", &["b"], 1), &foreign, wish, 100), Step::Names(any(1, &["b"])));
}

#[test]
fn an_election_counts_votes_of_the_electorate_only() {
    let sync = state("a", &["b", "c"], 1);
    let votes = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
    assert!(elected(&sync, "b", &votes(&["c"])));
    assert!(!elected(&sync, "b", &votes(&["d"])));
    assert!(!elected(&sync, "b", &votes(&[])));
    assert!(!elected(&sync, "d", &votes(&["c"])));
    assert!(elected(&sync, "d", &votes(&["b", "c"])));
    assert!(!elected(&state("a", &[], 0), "b", &votes(&["c"])), "nobody but the leader has the commits");
    assert!(elected(&state("a", &[], 0), "b", &votes(&["a"])));
}

#[test]
fn a_winner_starts_with_the_old_leader_as_voter() {
    let (sync, guc) = takeover(&state("a", &["b", "c"], 1), "b", SyncMode::Quorum, false);
    assert_eq!(sync, state("b", &["a", "c"], 1));
    assert_eq!(guc, any(1, &["a", "c"]));
    let (sync, guc) = takeover(&state("a", &["b"], 0), "b", SyncMode::Quorum, false);
    assert_eq!((sync, guc), (state("b", &["a"], 0), any(1, &["a"])));
}

#[test]
fn a_winner_in_priority_mode_leads_alone_and_in_strict_mode_waits_for_anybody() {
    let listed = state("a", &["b", "c"], 0);
    let (sync, guc) = takeover(&listed, "b", SyncMode::Priority, false);
    assert_eq!((sync, guc.guc()), (state("b", &[], 0), String::new()));
    let (sync, guc) = takeover(&listed, "b", SyncMode::Priority, true);
    assert_eq!((sync, guc.guc()), (state("b", &[], 0), "*".to_owned()));
    let (_, guc) = takeover(&state("a", &[], 0), "a", SyncMode::Quorum, true);
    assert_eq!(guc.guc(), "ANY 1 (*)");
}
