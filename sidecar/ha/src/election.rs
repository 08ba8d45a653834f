//! The race for a free lock: whom to ask, and what the answers allow. Peers are asked for their positions; an annotation
//! that may be old never decides.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::config::SyncMode;
use crate::event::PeerAnswer;
use crate::member::Member;
use crate::mutants::{self, Mutant};
use crate::quorum;
use crate::store::record::SyncState;
use crate::types::{Boot, Lsn, Timeline};

/// A round of questions. Answers given before the lock was free do not count, so a round starts when it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// When the questions left.
    pub started: Boot,
    /// Those asked, with what came back: none while it is out, an error when nothing came.
    pub asked: BTreeMap<String, Option<Result<PeerAnswer, String>>>,
    /// Ids of the effects.
    pub ids: BTreeMap<u64, String>,
}

/// How long a peer may take, milliseconds: a dead pod's address does not refuse, it is silent.
pub const ANSWER_TIMEOUT_MS: u64 = 1_000;

/// What the candidate knows of itself and of the rules.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its position.
    pub lsn: Lsn,
    /// Its timeline.
    pub timeline: Timeline,
    /// Quorum or not.
    pub mode: SyncMode,
    /// `/sync`.
    pub sync: &'a SyncState,
    /// Whose lock ran out; it is not waited for.
    pub former: Option<&'a str>,
    /// It released the lock, or its fence has closed: nothing that it executes is acknowledged any more.
    pub former_is_over: bool,
    /// A person chose us whatever we lack: where no commit was promised to last, others may be ahead.
    pub by_hand: bool,
    /// Without votes nothing tells what a member lacks that has data and is still starting: it is waited for, but not for ever.
    pub patient: bool,
    /// `failover_priority`; none: it does not count any more, because those who come first did not come.
    pub priority: Option<i64>,
    /// All members, for their priorities.
    pub members: &'a [Member],
    /// The lock's last holder was another pod of our name. In failsafe it would not ask us, so it may go on although we have promised
    /// nothing: these are the members that it would ask. None: it cannot.
    pub replaces: Option<&'a BTreeMap<String, String>>,
}

impl Candidate<'_> {
    /// No commit can be acknowledged behind our back with the help of one that answered so. Patroni ends no stream: its word counts
    /// where there is none, or nobody whose commits it could acknowledge.
    fn rests(&self, peer: &PeerAnswer) -> bool {
        peer.stream_ended || (peer.patroni && (self.former_is_over || !peer.streaming))
    }

    /// Somebody who is ahead shall lead. Where commits were promised to last, votes tell what we may lack, and one who is ahead
    /// without having come first for long (it cannot lead, or knows only what nobody acknowledged) is not waited for for ever.
    fn yields(&self, name: &str) -> bool {
        match self.mode {
            SyncMode::Off => !self.by_hand,
            SyncMode::Priority | SyncMode::Quorum => {
                Some(name) != self.former && self.priority.is_some() && quorum::electorate(self.sync, name)
            }
        }
    }

    /// One member that the holder has to ask in failsafe, for whom the lock is free and who has promised nothing, proves that it is over.
    fn holder_is_over(&self, round: &Round) -> bool {
        let over = |name: &str| matches!(round.asked.get(name), Some(Some(Ok(a))) if a.free && !a.promised);
        self.by_hand
            || mutants::on(Mutant::ReplacementAsksNobody)
            || self.replaces.is_none_or(|topology| topology.keys().any(|name| over(name)))
    }

    /// Comes before us if it is as far as we are.
    fn precedes(&self, name: &str, priority: i64) -> bool {
        let barred = self.mode == SyncMode::Priority && !quorum::electorate(self.sync, name);
        Some(name) != self.former && !barred && self.priority.is_some_and(|ours| priority > ours)
    }

    /// A member of higher priority is as far as we are, or has yet to say so.
    pub fn knows_better(&self, round: Option<&Round>) -> bool {
        let as_far = |peer: &PeerAnswer| peer.running && (peer.timeline, peer.lsn) >= (self.timeline, self.lsn);
        let may_lead = |name: &str| match round.and_then(|round| round.asked.get(name)) {
            None | Some(None) => true,
            Some(Some(Err(_))) => false,
            Some(Some(Ok(peer))) => as_far(peer) && !peer.nofailover,
        };
        self.members.iter().filter(|m| self.waits_for(m)).any(|m| may_lead(&m.name))
    }

    /// As far as its tags tell, it may lead, and comes before us.
    fn waits_for(&self, member: &Member) -> bool {
        !member.tags.nofailover && self.precedes(&member.name, member.tags.failover_priority)
    }
}

/// What the answers allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Wait for these.
    Open(Vec<String>),
    /// Take the lock.
    Won,
    /// Not us, for this reason.
    Lost(String),
}

/// Judges the answers so far.
pub fn judge(round: &Round, me: &Candidate<'_>) -> Outcome {
    match count(round, me) {
        Outcome::Won if !me.holder_is_over(round) => {
            let open: Vec<String> = round.asked.iter().filter(|(_, a)| a.is_none()).map(|(n, _)| n.clone()).collect();
            if open.is_empty() {
                let why = "an earlier pod of this name had the lock and may go on in failsafe: another member has to say that it is free";
                Outcome::Lost(why.to_owned())
            } else {
                Outcome::Open(open)
            }
        }
        outcome => outcome,
    }
}

fn count(round: &Round, me: &Candidate<'_>) -> Outcome {
    let voting = me.mode != SyncMode::Off;
    let outsider = me.mode == SyncMode::Priority && !quorum::electorate(me.sync, me.name);
    if outsider && !mutants::on(Mutant::OutsiderLeads) {
        return Outcome::Lost(format!("not among the synchronous standbys ({})", me.sync.voters.join(", ")));
    }
    let mut votes = BTreeSet::new();
    let mut open = Vec::new();
    for (name, answer) in &round.asked {
        match answer {
            None => open.push(name.clone()),
            Some(Err(_)) if mutants::on(Mutant::SilenceVotes) => {
                votes.insert(name.clone());
            }
            Some(Err(_)) => {}
            Some(Ok(peer)) => {
                if peer.running && peer.primary {
                    return Outcome::Lost(format!("{name} still runs as primary"));
                }
                if peer.promised {
                    return Outcome::Lost(format!("{name} has promised the former leader to leave the lock alone"));
                }
                if !peer.running || peer.lsn == Lsn(0) {
                    if !voting && me.patient && peer.starting {
                        return Outcome::Lost(format!("{name} has data and is still starting"));
                    }
                    continue;
                }
                let timeline = if mutants::on(Mutant::TimelineIgnored) { me.timeline } else { peer.timeline };
                let ahead = (timeline, peer.lsn) > (me.timeline, me.lsn);
                if ahead && !peer.nofailover && me.yields(name) {
                    return Outcome::Lost(format!("{name} is ahead: {} on timeline {}", peer.lsn, peer.timeline));
                }
                let level = (peer.timeline, peer.lsn) == (me.timeline, me.lsn);
                if level && !peer.nofailover && me.precedes(name, peer.failover_priority) {
                    return Outcome::Lost(format!(
                        "{name} is as far and has failover_priority {}",
                        peer.failover_priority
                    ));
                }
                if !ahead && (!voting || me.rests(peer) || mutants::on(Mutant::VoteWithoutEndedStream)) {
                    votes.insert(name.clone());
                }
            }
        }
    }
    // One that would come before us is waited for also when the votes are there.
    let first = |name: &String| me.members.iter().find(|m| m.name == *name).is_some_and(|m| me.waits_for(m));
    if !voting {
        let waited: Vec<String> = open.into_iter().filter(|n| Some(n.as_str()) != me.former).collect();
        return if waited.is_empty() { Outcome::Won } else { Outcome::Open(waited) };
    }
    if quorum::elected(me.sync, me.name, &votes) {
        let waited: Vec<String> = open.into_iter().filter(first).collect();
        return if waited.is_empty() { Outcome::Won } else { Outcome::Open(waited) };
    }
    if open.is_empty() {
        return Outcome::Lost(format!(
            "{} vote(s) of {} and the old leader {}: {} needed besides ours",
            votes.len(),
            me.sync.voters.join(", "),
            me.sync.leader.as_deref().unwrap_or("(none)"),
            me.sync.quorum
        ));
    }
    Outcome::Open(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = Result<PeerAnswer, String>;

    fn standby(lsn: u64) -> PeerAnswer {
        PeerAnswer { running: true, lsn: Lsn(lsn), timeline: Timeline(1), stream_ended: true, ..PeerAnswer::default() }
    }

    fn round(asked: &[(&str, Option<Answer>)]) -> Round {
        let asked = asked.iter().map(|(n, a)| ((*n).to_owned(), a.clone())).collect();
        Round { started: Boot(0), asked, ids: BTreeMap::new() }
    }

    fn candidate(mode: SyncMode, sync: &SyncState) -> Candidate<'_> {
        let (lsn, timeline) = (Lsn(100), Timeline(1));
        Candidate {
            name: "b",
            lsn,
            timeline,
            mode,
            sync,
            former: Some("a"),
            former_is_over: false,
            by_hand: false,
            patient: false,
            priority: Some(1),
            members: &[],
            replaces: None,
        }
    }

    #[test]
    fn nobody_leads_while_a_member_has_promised_the_leader_to_wait() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into()], quorum: 1 };
        for mode in [SyncMode::Off, SyncMode::Priority, SyncMode::Quorum] {
            let promised = PeerAnswer { promised: true, ..standby(100) };
            let asked = round(&[("a", None), ("c", Some(Ok(promised)))]);
            let by_hand = Candidate { by_hand: true, ..candidate(mode, &sync) };
            assert!(matches!(judge(&asked, &by_hand), Outcome::Lost(_)), "{mode:?}");
        }
    }

    #[test]
    fn another_pod_of_the_leaders_name_leads_only_when_a_member_says_that_the_lock_is_free() {
        let sync = SyncState { leader: Some("b".into()), voters: vec!["c".into()], quorum: 0 };
        let topology = ["b", "c"].map(|name| (name.to_owned(), String::new())).into();
        let free = PeerAnswer { free: true, ..standby(100) };
        for mode in [SyncMode::Off, SyncMode::Priority, SyncMode::Quorum] {
            let me = Candidate { replaces: Some(&topology), former: Some("b"), ..candidate(mode, &sync) };
            let judged = |answer| judge(&round(&[("c", answer)]), &me);
            assert!(matches!(judged(None), Outcome::Open(_)), "{mode:?}");
            assert!(matches!(judged(Some(Err("silent".into()))), Outcome::Lost(_)), "{mode:?}");
            assert!(matches!(judged(Some(Ok(standby(100)))), Outcome::Lost(_)), "it counts its ttl: {mode:?}");
            assert_eq!(judged(Some(Ok(free.clone()))), Outcome::Won, "{mode:?}");
            // One that the former leader would not have asked says nothing of it, and a person may know.
            let stranger = round(&[("c", Some(Err("silent".into()))), ("d", Some(Ok(free.clone())))]);
            assert!(matches!(judge(&stranger, &me), Outcome::Lost(_)), "{mode:?}");
            assert_eq!(judge(&stranger, &Candidate { by_hand: true, ..me }), Outcome::Won, "{mode:?}");
        }
    }

    #[test]
    fn async_waits_for_all_but_the_former_leader() {
        let sync = SyncState::default();
        let me = candidate(SyncMode::Off, &sync);
        assert_eq!(judge(&round(&[("a", None), ("c", None)]), &me), Outcome::Open(vec!["c".into()]));
        assert_eq!(judge(&round(&[("a", None), ("c", Some(Ok(standby(100))))]), &me), Outcome::Won);
        assert!(matches!(judge(&round(&[("a", None), ("c", Some(Ok(standby(101))))]), &me), Outcome::Lost(_)));
        assert_eq!(judge(&round(&[("a", None), ("c", Some(Err("silent".into())))]), &me), Outcome::Won);
    }

    #[test]
    fn quorum_is_decided_as_soon_as_the_votes_are_there_and_never_without() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into()], quorum: 1 };
        let me = candidate(SyncMode::Quorum, &sync);
        assert_eq!(judge(&round(&[("a", None), ("c", Some(Ok(standby(100))))]), &me), Outcome::Won);
        let silent = Some(Err("silent".to_owned()));
        assert!(matches!(judge(&round(&[("a", silent.clone()), ("c", silent)]), &me), Outcome::Lost(_)));
    }

    #[test]
    fn a_vote_without_an_ended_stream_does_not_count_in_quorum() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into()], quorum: 1 };
        let mut peer = standby(100);
        peer.stream_ended = false;
        let silent = Some(Err("silent".to_owned()));
        let asked = round(&[("a", silent), ("c", Some(Ok(peer)))]);
        assert!(matches!(judge(&asked, &candidate(SyncMode::Quorum, &sync)), Outcome::Lost(_)));
    }

    #[test]
    fn a_member_that_runs_patroni_votes_when_it_can_acknowledge_nothing_more() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into()], quorum: 1 };
        let judged = |streaming, former_is_over| {
            let peer = PeerAnswer { patroni: true, stream_ended: false, streaming, ..standby(100) };
            let asked = round(&[("a", Some(Err("silent".to_owned()))), ("c", Some(Ok(peer)))]);
            judge(&asked, &Candidate { former_is_over, ..candidate(SyncMode::Quorum, &sync) })
        };
        // The old leader runs Patroni as well: nothing stops it, and the standby still receives from it.
        assert!(matches!(judged(true, false), Outcome::Lost(_)));
        assert_eq!(judged(false, false), Outcome::Won);
        assert_eq!(judged(true, true), Outcome::Won, "its fence has closed, or it released the lock");
    }

    #[test]
    fn without_votes_one_that_is_still_starting_is_waited_for() {
        let nobody = SyncState::default();
        let starting = PeerAnswer { starting: true, ..PeerAnswer::default() };
        let asked = round(&[("c", Some(Ok(starting)))]);
        let me = Candidate { patient: true, former: None, ..candidate(SyncMode::Off, &nobody) };
        assert!(matches!(judge(&asked, &me), Outcome::Lost(_)));
        assert_eq!(judge(&asked, &Candidate { patient: false, ..me }), Outcome::Won);
        let empty = round(&[("c", Some(Ok(PeerAnswer::default())))]);
        assert_eq!(
            judge(&empty, &Candidate { patient: true, former: None, ..candidate(SyncMode::Off, &nobody) }),
            Outcome::Won
        );
    }

    #[test]
    fn a_higher_priority_counts_only_of_one_that_may_lead() {
        let asked =
            |name: &str| round(&[("a", None), (name, Some(Ok(PeerAnswer { failover_priority: 9, ..standby(100) })))]);
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into()], quorum: 0 };
        let me = candidate(SyncMode::Priority, &sync);
        assert!(matches!(judge(&asked("c"), &me), Outcome::Lost(_)));
        assert_eq!(judge(&asked("outsider"), &me), Outcome::Won);
    }

    #[test]
    fn one_chosen_by_hand_may_lack_what_was_not_promised_to_last() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into()], quorum: 1 };
        let ahead = round(&[("a", None), ("c", Some(Ok(standby(101))))]);
        let chosen = |mode| Candidate { by_hand: true, ..candidate(mode, &sync) };
        assert_eq!(judge(&ahead, &chosen(SyncMode::Off)), Outcome::Won);
        assert!(matches!(judge(&ahead, &chosen(SyncMode::Quorum)), Outcome::Lost(_)));
        let primary = round(&[("c", Some(Ok(PeerAnswer { primary: true, ..standby(1) })))]);
        assert!(matches!(judge(&primary, &chosen(SyncMode::Off)), Outcome::Lost(_)));
    }

    #[test]
    fn of_two_that_are_equally_far_the_higher_priority_leads() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into()], quorum: 1 };
        let peer = |lsn, failover_priority| Some(Ok(PeerAnswer { failover_priority, ..standby(lsn) }));
        for mode in [SyncMode::Off, SyncMode::Quorum] {
            let me = candidate(mode, &sync);
            let judged = |answer| judge(&round(&[("a", None), ("c", answer)]), &me);
            assert!(matches!(judged(peer(100, 2)), Outcome::Lost(_)), "{mode:?}");
            assert_eq!(judged(peer(99, 2)), Outcome::Won, "it is behind: {mode:?}");
            assert_eq!(judged(peer(100, 1)), Outcome::Won, "{mode:?}");
            // Those who come first did not come for long.
            let alone = Candidate { priority: None, ..me };
            assert_eq!(judge(&round(&[("a", None), ("c", peer(100, 2))]), &alone), Outcome::Won, "{mode:?}");
            // The former leader's does not count, and one that never leads does not come first.
            let former = Candidate { former: Some("c"), ..me };
            assert_eq!(judge(&round(&[("c", peer(100, 2))]), &former), Outcome::Won, "{mode:?}");
        }
    }

    #[test]
    fn one_that_would_come_first_is_waited_for_though_the_votes_are_there() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into(), "d".into()], quorum: 1 };
        let status = r#"{"tags":{"failover_priority":5}}"#.to_owned();
        let pod = crate::event::Object {
            name: "d".into(),
            annotations: [("status".into(), status)].into(),
            ..Default::default()
        };
        let members = [Member::from_pod(&pod)];
        let me = Candidate { members: &members, ..candidate(SyncMode::Quorum, &sync) };
        let open = round(&[("c", Some(Ok(standby(100)))), ("d", None)]);
        assert_eq!(judge(&open, &me), Outcome::Open(vec!["d".into()]));
        assert_eq!(judge(&open, &candidate(SyncMode::Quorum, &sync)), Outcome::Won);
    }

    #[test]
    fn one_that_never_leads_votes_and_is_no_rival() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into()], quorum: 1 };
        let tagged = |lsn| Some(Ok(PeerAnswer { nofailover: true, failover_priority: 9, ..standby(lsn) }));
        let me = candidate(SyncMode::Quorum, &sync);
        assert_eq!(judge(&round(&[("c", tagged(100))]), &me), Outcome::Won, "it votes");
        // It has more than we: no rival, but without its vote we may lack what was acknowledged.
        assert!(matches!(judge(&round(&[("c", tagged(101))]), &me), Outcome::Lost(_)));
        assert_eq!(judge(&round(&[("c", tagged(101))]), &candidate(SyncMode::Off, &sync)), Outcome::Won);
    }

    #[test]
    fn in_priority_mode_only_listed_standbys_lead_and_need_no_votes() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into()], quorum: 0 };
        let me = candidate(SyncMode::Priority, &sync);
        let silent = || Some(Err("silent".to_owned()));
        assert_eq!(judge(&round(&[("a", silent()), ("c", silent())]), &me), Outcome::Won);
        // Not listed, and ahead by what nobody acknowledged.
        assert_eq!(judge(&round(&[("a", silent()), ("c", Some(Ok(standby(101))))]), &me), Outcome::Won);
        let other = SyncState { voters: vec!["c".into()], ..sync.clone() };
        assert!(matches!(judge(&round(&[("a", silent())]), &candidate(SyncMode::Priority, &other)), Outcome::Lost(_)));
    }

    #[test]
    fn one_who_is_ahead_and_does_not_lead_is_not_waited_for_for_ever() {
        let sync = SyncState { leader: Some("a".into()), voters: vec!["b".into(), "c".into(), "d".into()], quorum: 1 };
        let answers = round(&[("c", Some(Ok(standby(101)))), ("d", Some(Ok(standby(100))))]);
        let me = candidate(SyncMode::Quorum, &sync);
        assert!(matches!(judge(&answers, &me), Outcome::Lost(_)));
        assert_eq!(judge(&answers, &Candidate { priority: None, ..me }), Outcome::Won, "d's vote is enough");
    }

    #[test]
    fn a_running_primary_is_never_overtaken() {
        let sync = SyncState::default();
        let mut peer = standby(1);
        peer.primary = true;
        let asked = round(&[("a", Some(Ok(peer)))]);
        assert!(matches!(judge(&asked, &candidate(SyncMode::Off, &sync)), Outcome::Lost(_)));
    }
}
