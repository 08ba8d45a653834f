//! A seed becomes a plan. Every kind of fault is in half of all plans, and how often it comes is drawn anew for each: that finds
//! more than everything at once, all the time.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // every draw is small

use serde_json::json;

use crate::draw::{Draws, For};
use crate::plan::{ANYBODY, Config, Durability, Fault, Op, Plan, Probe, When};

/// Milliseconds in a second.
const S: u64 = 1000;

struct Swarm {
    draws: Draws,
    /// Whose draws: what came later into the plans has draws of its own, so that the rest of a seed's plan stays what it was.
    turn: usize,
    config: Config,
    ops: Vec<Op>,
}

/// The plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut draws = Draws::new(seed);
    let config = config(&mut draws);
    let mut swarm = Swarm { draws, turn: 0, config, ops: Vec::new() };
    if seed % 20 == 7 {
        swarm.one_fault();
    } else {
        swarm.fill();
        swarm.options();
        swarm.change_of_the_leader();
        swarm.fences();
        swarm.follows();
    }
    if seed % 8 == 3 {
        swarm.config.quiet_ms = 15_000;
    }
    let Swarm { config, ops, .. } = swarm;
    Plan { seed, config, ops }
}

fn config(draws: &mut Draws) -> Config {
    let mut below = |n: u64| draws.below(For::Swarm, 0, n);
    let members = match below(100) {
        0..6 => 1,
        6..16 => 2,
        16..78 => 3,
        78..85 => 4,
        _ => 5,
    };
    let durability = match below(100) {
        0..25 => Durability::Async,
        25..45 => Durability::Priority,
        _ if members == 1 => Durability::Async,
        _ => Durability::Quorum,
    };
    let (ttl, loop_wait, retry_timeout) = match below(5) {
        0 => (7, 1, 2),
        1 | 2 => (10, 2, 3),
        3 => (15, 3, 4),
        _ => (20, 5, 5),
    };
    let extreme = below(2) == 0;
    let mut drift_ppm = Vec::new();
    for _ in 0..members {
        let ppm = if extreme { if below(2) == 0 { 1000 } else { -1000 } } else { below(401) as i64 - 200 };
        drift_ppm.push(ppm);
    }
    let mut core = Vec::new();
    if members > 1 && below(4) == 0 {
        let size = 1 + below(members as u64 - 1);
        let first = below(members as u64);
        core = (0..size).map(|i| ((first + i) % members as u64) as usize).collect();
        core.sort_unstable();
    }
    Config {
        members,
        durability,
        strict: below(100) < 15,
        sync_count: if members > 3 && below(3) == 0 { 2 } else { 1 },
        ttl,
        loop_wait,
        retry_timeout,
        failsafe: below(100) < 65,
        endpoints: below(100) < 30,
        chaos_ms: 20_000 + below(40_000),
        drift_ppm,
        transactions: 120 << below(3),
        api_us: 500 << below(6),
        peer_us: 50 << below(6),
        flush_us: 100 << below(8),
        watch_us: 500 << below(7),
        tags: Vec::new(),
        more: serde_json::Map::new(),
        calm: false,
        source: false,
        quiet_ms: 0,
        core,
    }
}

impl Swarm {
    fn below(&mut self, n: u64) -> u64 {
        self.draws.below(For::SwarmOp, self.turn, n)
    }

    fn member(&mut self) -> usize {
        // Most trouble is about the leader.
        if self.below(100) < 45 { ANYBODY } else { self.below(self.config.members as u64) as usize }
    }

    fn other(&mut self) -> usize {
        self.below(self.config.members as u64) as usize
    }

    /// Short, about one of the cluster's own times, or long.
    fn lasts(&mut self) -> u64 {
        let (ttl, loop_wait, retry) = (self.config.ttl * S, self.config.loop_wait * S, self.config.retry_timeout * S);
        match self.below(100) {
            0..40 => self.draws.log_uniform(For::SwarmOp, self.turn, 1, loop_wait),
            40..80 => {
                let time = [ttl, ttl - 1_500, loop_wait, retry, 900, retry + loop_wait][self.below(6) as usize];
                time * (95 + self.below(11)) / 100
            }
            _ => ttl + self.below(2 * ttl),
        }
    }

    fn when(&mut self) -> When {
        if self.below(100) < 30 {
            let probes = [
                Probe::RenewalSent,
                Probe::RenewalApplied,
                Probe::AcquireApplied,
                Probe::ReleaseApplied,
                Probe::PromoteSent,
                Probe::SyncApplied,
                Probe::NamesLoaded,
                Probe::WipeSent,
                Probe::StopSent,
                Probe::RoundOpened,
                Probe::FailsafeSent,
            ];
            let probe = probes[self.below(probes.len() as u64) as usize];
            let often = matches!(probe, Probe::RenewalSent | Probe::RenewalApplied);
            let nth = 1 + self.below(if often { 12 } else { 3 }) as u32;
            return When::After { probe, nth, delay_us: self.below(20_000) };
        }
        When::At(self.below(self.config.chaos_ms))
    }

    fn fill(&mut self) {
        type Make = fn(&mut Swarm) -> Fault;
        // Kind, mean gap in seconds at its most frequent.
        let kinds: [(u64, Make); 40] = [
            (12, |s| Fault::AgentKill(s.member())),
            (12, |s| Fault::AgentStop(s.member())),
            (20, |s| Fault::AgentSlow(s.member(), s.draws.log_uniform(For::SwarmOp, 0, 1, 3_000))),
            (12, |s| Fault::PostmasterKill(s.member())),
            (25, |s| Fault::ContainerKill(s.member())),
            (25, |s| Fault::PodKill(s.member())),
            (25, |s| Fault::PodDelete(s.member())),
            (15, |s| Fault::PodFreeze(s.member())),
            (25, |s| Fault::NodeCrash(s.member())),
            (50, |s| Fault::PodReplace(s.member())),
            (15, |s| Fault::Cut(s.member())),
            (15, |s| Fault::CutApi(s.member())),
            (15, |s| Fault::CutPeers(s.member(), s.other())),
            (15, |s| Fault::CutOneWay(s.member(), s.other())),
            (20, |_| Fault::ApiDown),
            (20, |s| Fault::ApiSlow(s.draws.log_uniform(For::SwarmOp, 0, 5, 2_000))),
            (20, |s| Fault::ApiLoseAnswers(s.below(700))),
            (20, |s| Fault::ApiErrors(s.below(700))),
            (20, |s| Fault::ApiLate(s.member(), s.below(600))),
            (15, |_| Fault::WatchesEnd),
            (15, |s| Fault::WatchMute(s.other())),
            (15, |s| Fault::WatchLag(s.other(), s.draws.log_uniform(For::SwarmOp, 0, 10, 5_000))),
            (15, |s| Fault::ClockRate(s.other(), if s.below(2) == 0 { 1000 } else { -1000 })),
            (30, |s| Fault::WallJump(s.other(), s.below(200_000) as i64 - 100_000)),
            (25, |s| Fault::DiskSlow(s.member(), s.draws.log_uniform(For::SwarmOp, 0, 1, 3_000))),
            (50, |s| Fault::VolumeLost(s.other())),
            (20, |s| Fault::StreamStuck(s.other())),
            (50, |_| Fault::LockDeleted),
            (15, |s| Fault::Switchover(s.other())),
            (60, |s| Fault::Failover(s.other())),
            (40, |s| Fault::Restart(s.member())),
            (60, |s| Fault::RestartLater(s.member(), 1 + s.below(20))),
            (50, |s| Fault::Reinitialize(s.other())),
            (50, |s| Fault::SwitchoverLater(s.other(), 1 + s.below(20))),
            (40, |s| Fault::StartsFail(s.member())),
            (30, |s| Fault::SlowStart(s.member())),
            (60, |s| Fault::DataLost(s.member())),
            (60, |s| Fault::Ttl(5 + s.below(20))),
            (60, |s| Fault::SyncCount(1 + s.below(2) as usize)),
            (60, |s| {
                if s.config.durability == Durability::Quorum {
                    Fault::Durability(Durability::Async)
                } else {
                    Fault::WatchesEnd
                }
            }),
        ];
        for (gap, make) in kinds {
            if self.below(2) == 0 {
                continue;
            }
            let factor = 1 << self.below(4);
            let times = self.config.chaos_ms / (gap * S * factor).max(1);
            let more = u64::from(self.below(gap * S * factor) < self.config.chaos_ms % (gap * S * factor));
            for _ in 0..times + more {
                let what = make(self);
                let op = Op { when: self.when(), what, lasts_ms: self.lasts() };
                self.ops.push(op);
            }
        }
        let hell = self.below(100);
        if hell < 5 {
            let op = Op { when: self.when(), what: Fault::ClockStop(self.member()), lasts_ms: self.lasts() };
            self.ops.push(op);
        } else if hell < 12 {
            let op = Op { when: self.when(), what: Fault::Pause, lasts_ms: self.lasts() };
            self.ops.push(op);
        }
    }

    /// What clusters are configured with beyond the ordinary.
    fn options(&mut self) {
        let members = self.config.members;
        if members > 2 && self.below(4) == 0 {
            let tagged = self.other();
            let tag = match self.below(5) {
                0 => json!({"nofailover": true}),
                1 => json!({"failover_priority": 5}),
                2 => json!({"nosync": true}),
                _ => json!({"replicatefrom": format!("x-{}", (tagged + 1) % members)}),
            };
            self.config.tags = vec![json!({}); members];
            self.config.tags[tagged] = tag;
        }
        let (backoff, timeout) = (5 + self.below(15), [0, 0, 5, 10][self.below(4) as usize]);
        let more = &mut self.config.more;
        let draws = &mut self.draws;
        let mut one_in = |n: u64| draws.below(For::SwarmOp, 1, n) == 0;
        if one_in(8) {
            more.insert("primary_race_backoff".into(), backoff.into());
        }
        if one_in(4) {
            more.insert("primary_start_timeout".into(), timeout.into());
        }
        if one_in(6) {
            let slot = json!({"type": "logical", "database": "postgres", "plugin": "test_decoding"});
            more.insert("slots".into(), json!({"decoded": slot}));
        }
    }

    /// A plan in which the leader never has to go would show little.
    fn change_of_the_leader(&mut self) {
        if self.config.members == 1 {
            return;
        }
        let what = match self.below(6) {
            0 => Fault::PodDelete(ANYBODY),
            1 => Fault::PodKill(ANYBODY),
            2 => Fault::NodeCrash(ANYBODY),
            3 => Fault::PodFreeze(ANYBODY),
            _ => Fault::Switchover(self.other()),
        };
        let at = self.config.chaos_ms / 8 + self.below(self.config.chaos_ms / 2);
        let lasts_ms = (self.config.ttl + 5) * S;
        self.ops.push(Op { when: When::At(at), what, lasts_ms });
    }

    /// People fence members, the leader as well. (Last, so that the plans of seeds stay what they were but for this.)
    fn fences(&mut self) {
        // After a switch to async, commits that quorum had acknowledged are as safe as any in async (docs/safety.md, Changing the
        // mode), but still count as promised here: a member that was away for long would only show that again and again.
        let switched = self.ops.iter().any(|op| matches!(op.what, Fault::Durability(_)));
        if self.below(6) != 0 || switched {
            return;
        }
        for _ in 0..=self.below(3) {
            let what = Fault::Fence(self.member());
            let op = Op { when: self.when(), what, lasts_ms: self.lasts() };
            self.ops.push(op);
        }
    }

    /// Some clusters begin as standby clusters. People promote them and let them follow again, and the cluster outside has troubles of
    /// its own.
    fn follows(&mut self) {
        type Make = fn(&mut Swarm) -> Fault;
        self.turn = 2;
        if self.below(8) != 0 {
            return;
        }
        self.config.source = true;
        let turns = self.below(4);
        for turn in 0..turns {
            let what = if turn % 2 == 0 { Fault::PromoteCluster } else { Fault::DemoteCluster };
            let span = self.config.chaos_ms / turns;
            let at = When::At(turn * span + self.below(span));
            self.ops.push(Op { when: at, what, lasts_ms: 0 });
        }
        let kinds: [Make; 4] = [
            |_| Fault::SourceDown,
            |s| Fault::SourceSlow(s.draws.log_uniform(For::SwarmOp, s.turn, 1, 3_000)),
            |s| Fault::SourceFailover(s.below(2) * s.below(30_000)),
            |s| Fault::CutSource(s.member()),
        ];
        for make in kinds {
            let times = self.below(2) * (1 + self.below(3));
            for _ in 0..times {
                let what = make(self);
                let op = Op { when: self.when(), what, lasts_ms: self.lasts() };
                self.ops.push(op);
            }
        }
    }

    /// A calm cluster, and one thing that goes wrong with its leader.
    fn one_fault(&mut self) {
        let durability = if self.below(2) == 0 { Durability::Async } else { Durability::Quorum };
        let drift_ppm = vec![0; 3];
        let calm = Config { calm: true, transactions: 1_200, drift_ppm, ..Config::calm(3, durability) };
        self.config = Config { endpoints: self.below(2) == 0, ..calm };
        let (what, lasts_ms) = match self.below(7) {
            0 => (Fault::Switchover(self.other()), 0),
            1 => (Fault::PostmasterKill(ANYBODY), 0),
            2 => (Fault::PodDelete(ANYBODY), 0),
            3 => (Fault::PodKill(ANYBODY), 0),
            4 => (Fault::NodeCrash(ANYBODY), 30 * S),
            5 => (Fault::PodFreeze(ANYBODY), 30 * S),
            _ => (Fault::ContainerKill(ANYBODY), 0),
        };
        // A cluster that has just been made has settled its votes by then: two steps of a loop each.
        let at = 5 * S + self.below(5 * S);
        self.ops.push(Op { when: When::At(at), what, lasts_ms });
    }
}
