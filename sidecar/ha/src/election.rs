//! The race for a free lock: whom to ask, and what the answers allow. Peers are asked for their positions; an annotation
//! that may be old never decides.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::config::SyncMode;
use crate::event::PeerAnswer;
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
    let mut votes = BTreeSet::new();
    let mut open = Vec::new();
    for (name, answer) in &round.asked {
        match answer {
            None => open.push(name.clone()),
            Some(Err(_)) => {}
            Some(Ok(peer)) => {
                if peer.running && peer.primary {
                    return Outcome::Lost(format!("{name} still runs as primary"));
                }
                if !peer.running || peer.lsn == Lsn(0) {
                    continue;
                }
                let ahead = (peer.timeline, peer.lsn) > (me.timeline, me.lsn);
                if ahead && !peer.nofailover {
                    return Outcome::Lost(format!("{name} is ahead: {} on timeline {}", peer.lsn, peer.timeline));
                }
                if !ahead && (me.mode == SyncMode::Off || peer.stream_ended) {
                    votes.insert(name.clone());
                }
            }
        }
    }
    match me.mode {
        SyncMode::Quorum if quorum::elected(me.sync, me.name, &votes) => Outcome::Won,
        SyncMode::Quorum if open.is_empty() => Outcome::Lost(format!(
            "{} vote(s) of {} and the old leader {}: {} needed besides ours",
            votes.len(),
            me.sync.voters.join(", "),
            me.sync.leader.as_deref().unwrap_or("(none)"),
            me.sync.quorum
        )),
        SyncMode::Quorum => Outcome::Open(open),
        SyncMode::Off => {
            let waited: Vec<String> = open.into_iter().filter(|n| Some(n.as_str()) != me.former).collect();
            if waited.is_empty() { Outcome::Won } else { Outcome::Open(waited) }
        }
    }
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
        Candidate { name: "b", lsn: Lsn(100), timeline: Timeline(1), mode, sync, former: Some("a") }
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
    fn a_running_primary_is_never_overtaken() {
        let sync = SyncState::default();
        let mut peer = standby(1);
        peer.primary = true;
        let asked = round(&[("a", Some(Ok(peer)))]);
        assert!(matches!(judge(&asked, &candidate(SyncMode::Off, &sync)), Outcome::Lost(_)));
    }
}
