//! Two members, one lock and two fences, tick by tick: any delay of a request, of its effect and of its answer, lost answers,
//! effects that come late, clocks that gain or lose, agents that are stopped or start anew, a lock object that is deleted, a ttl
//! that changes. All times are relative to now, so that the search ends.
//!
//! A tick is 500 ms. At a ttl of 6 ticks the margin is 3: 2 for K, and 1 for what one clock may gain on the other in a ttl.

use matriarch_ha::fence::{Fence, FenceAction, Role};
use matriarch_ha::lease::{Holder, Lease, Me};
use matriarch_ha::store::record::LockRecord;
use matriarch_ha::types::{Boot, Wall};

use crate::full;
use crate::gen_all::Gen;
use crate::search::{Model, explore};

const TICK_US: u64 = 500_000;
/// Now, on every clock, in ticks.
const NOW: i16 = 1_000;

/// Bounds of a search; the last ones are what may be weakened.
struct Bounds {
    ttls: &'static [u8],
    deletions: bool,
    agent_restarts: bool,
    attempts: usize,
    /// From a deadline to "no backend runs".
    k: u8,
    /// A deadline counts from when the attempt was sent, not from the answer.
    from_sending: bool,
    /// No write promises less than an earlier one gave.
    lasting: bool,
    /// The lock changes hands only by release or expiry, too.
    handing: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            ttls: &[6],
            deletions: true,
            agent_restarts: true,
            attempts: 1,
            k: 2,
            from_sending: true,
            lasting: true,
            handing: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Record {
    Absent,
    Free,
    Held {
        by: u8,
        ttl: u8,
        /// On its holder's clock, since the write was sent; none: by an agent that is no more.
        sent: Option<u8>,
    },
}

/// A write that is under way or whose answer never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Attempt {
    age: u8,
    /// None: a release.
    ttl: Option<u8>,
    /// On the stored version; no write has come between.
    valid: bool,
    applied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Node {
    view: Record,
    current: bool,
    changed: u8,
    attempts: [Option<Attempt>; 2],
    deadline: Option<i8>,
    /// What the supervisor was told: so many ticks are left.
    permit: i8,
    latched: bool,
    /// The fence has closed; it is over in so many ticks.
    closing: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct State {
    store: Record,
    /// True ticks since the record was written.
    since: u8,
    nodes: [Node; 2],
    /// Ticks before a clock may gain or lose again.
    steady: u8,
}

fn boot(ticks: i16) -> Boot {
    Boot(u64::try_from(ticks).unwrap() * TICK_US)
}

fn ms(ticks: u8) -> u64 {
    u64::from(ticks) * TICK_US / 1000
}

fn name(node: u8) -> &'static str {
    ["a", "b"][usize::from(node)]
}

fn me(node: u8) -> Me<'static> {
    Me { name: name(node), uid: name(node) }
}

fn document(record: Record) -> Option<LockRecord> {
    let (leader, ttl, sent) = match record {
        Record::Absent => return None,
        Record::Free => (None, None, None),
        Record::Held { by, ttl, sent } => (Some(name(by).to_owned()), Some(ttl), sent),
    };
    Some(LockRecord {
        holder_uid: leader.clone(),
        leader,
        ttl_ms: ttl.map(ms),
        renew_time: sent.map_or("before".to_owned(), |age| Wall(i64::from(age)).to_string()),
        acquire_time: "once".to_owned(),
        ..LockRecord::default()
    })
}

impl Node {
    /// The real thing, in this node's state.
    fn lease(&self, node: u8) -> Lease {
        let mut lease = Lease::default();
        // What comes next is another record, also when it is as old.
        let seen = document(self.view).map(|r| (LockRecord { renew_time: r.renew_time + " seen", ..r }, "1"));
        lease.observe(boot(NOW - i16::from(self.changed)), seen, &me(node));
        for attempt in self.attempts.iter().flatten() {
            let Some(ttl) = attempt.ttl else { continue };
            lease.sending(boot(NOW - i16::from(attempt.age)), Wall(i64::from(attempt.age)), ms(ttl), None);
        }
        if let Some(left) = self.deadline {
            // A ttl of 6 ticks gives 3 after the margin.
            lease.failsafe(boot(NOW + i16::from(left) - 3), ms(6));
        }
        lease
    }

    fn saw(&mut self, node: u8, record: Record, from_sending: bool) {
        let mut lease = self.lease(node);
        // Seen by a watch it was there meanwhile; so it may have been when it is listed.
        if self.view == Record::Absent {
            lease.listed(boot(NOW));
            self.changed = 0;
        }
        if lease.observe(boot(NOW), document(record).map(|r| (r, "1")), &me(node)) {
            self.changed = 0;
        }
        self.view = record;
        let deadline = lease.deadline().map(|d| i16::try_from(d.0 / TICK_US).unwrap() - NOW);
        self.deadline = deadline.map(|left| i8::try_from(left.max(-1)).unwrap());
        if let Record::Held { by, sent: Some(age), ttl } = record
            && by == node
        {
            if !from_sending {
                self.deadline = self.deadline.max(Some(i8::try_from(ttl).unwrap() - 3));
            }
            // What came before the confirmed one was never applied, or is what it replaced.
            for attempt in &mut self.attempts {
                *attempt = attempt.filter(|a| a.age < age || a.ttl.is_none());
            }
        }
    }

    fn holder(&self, node: u8, ttl: u8) -> Holder {
        self.lease(node).holder(boot(NOW), &me(node), ms(ttl), true)
    }

    fn fence(&self) -> Fence {
        let mut fence = Fence::new();
        let deadline = boot(NOW + i16::from(self.permit)).0;
        let _ = fence.permit(1, deadline);
        if self.latched {
            let _ = fence.starting(Role::Primary, deadline - 1);
        }
        if self.closing.is_some() {
            let _ = fence.due(deadline);
        }
        fence
    }
}

impl Model for Bounds {
    type State = State;

    fn start(&self) -> Vec<State> {
        let store = Record::Held { by: 0, ttl: self.ttls[0], sent: Some(0) };
        let follower = Node {
            view: store,
            current: true,
            changed: 0,
            attempts: [None; 2],
            deadline: None,
            permit: -1,
            latched: false,
            closing: None,
        };
        let left = i8::try_from(self.ttls[0]).unwrap() - 3;
        let leader = Node { deadline: Some(left), permit: left, latched: true, ..follower };
        vec![State { store, since: 0, nodes: [leader, follower], steady: 0 }]
    }

    /// The two are alike.
    fn canonical(&self, s: &mut State) {
        for (i, n) in s.nodes.iter_mut().enumerate() {
            n.changed = n.changed.min(self.longest());
            if matches!(n.view, Record::Held { by, .. } if by == u8::try_from(i).unwrap()) || n.view == Record::Free {
                n.changed = 0;
            }
            if !n.latched {
                n.permit = n.permit.max(0);
            }
        }
        s.since = if self.handing { s.since } else { 0 };
        let other = |record: Record| match record {
            Record::Held { by, ttl, sent } => Record::Held { by: 1 - by, ttl, sent },
            record => record,
        };
        let swapped = [1, 0].map(|i| Node { view: other(s.nodes[i].view), ..s.nodes[i] });
        if (other(s.store), swapped) < (s.store, s.nodes) {
            (s.store, s.nodes) = (other(s.store), swapped);
        }
    }

    fn check(&self, s: &State) -> Result<(), String> {
        if s.nodes.iter().all(|n| n.latched) { Err("two members may write".to_owned()) } else { Ok(()) }
    }

    fn step(&self, s: &mut State, g: &mut Gen) -> Result<Option<&'static str>, String> {
        match g.below(8) {
            0 => Ok(Some(self.tick(s, g))),
            1 => Ok(self.look(s, g)),
            2 => Ok(self.send(s, g)),
            3 => self.apply(s, g),
            4 => Ok(self.answer(s, g)),
            5 => Ok(supervise(s, g)),
            6 if self.agent_restarts => Ok(Some(restart(s, g))),
            7 if self.deletions && s.store != Record::Absent => {
                stored(s, Record::Absent);
                Ok(Some("the lock object is deleted"))
            }
            _ => Ok(None),
        }
    }
}

/// One write a tick: two are told apart by their times.
fn just_written(record: Record, node: u8) -> bool {
    matches!(record, Record::Held { by, sent: Some(0), .. } if by == node)
}

impl Bounds {
    fn longest(&self) -> u8 {
        self.ttls.iter().copied().max().unwrap_or(6)
    }

    /// What was sent so long ago gives no deadline any more.
    fn old(&self) -> u8 {
        self.longest() - 2
    }

    /// Time goes on; one clock may gain or lose a tick.
    fn tick(&self, s: &mut State, g: &mut Gen) -> &'static str {
        let mut by = [1, 1];
        if s.steady == 0 {
            by = *g.pick(&[[1, 1], [0, 1], [2, 1], [1, 0], [1, 2]]);
        }
        s.steady = if by == [1, 1] { s.steady.saturating_sub(1) } else { self.longest() };
        s.since = (s.since + 1).min(self.longest());
        let age = |record: &mut Record| {
            if let Record::Held { by: holder, sent, .. } = record {
                *sent = sent.map(|age| age + by[usize::from(*holder)]).filter(|age| *age < self.old());
            }
        };
        age(&mut s.store);
        for (n, by) in s.nodes.iter_mut().zip(by) {
            n.changed += by;
            for attempt in &mut n.attempts {
                // Too old to give a deadline; and a request takes effect by then, or never.
                *attempt = attempt.map(|a| Attempt { age: a.age + by, ..a }).filter(|a| a.age < self.old());
            }
            if let Record::Held { sent, .. } = &mut n.view {
                *sent = None;
            }
            let pass = |left: i8| (left - i8::try_from(by).unwrap()).max(-1);
            n.deadline = n.deadline.map(pass).filter(|left| *left > 0);
            if n.closing.is_none() {
                n.permit = pass(n.permit);
            }
            n.closing = n.closing.map(|left| left.saturating_sub(1));
            if matches!(n.fence().due(boot(NOW).0), FenceAction::Quit { .. }) {
                n.closing = Some(self.k);
            }
            if n.closing == Some(0) {
                (n.latched, n.closing) = (false, None);
            }
        }
        "a tick"
    }

    /// The watch delivers.
    fn look(&self, s: &mut State, g: &mut Gen) -> Option<&'static str> {
        let node = u8::from(g.flag());
        let n = &mut s.nodes[usize::from(node)];
        if n.current {
            return None;
        }
        n.current = true;
        n.saw(node, s.store, self.from_sending);
        // An answer that comes now is older than what was seen.
        for attempt in &mut n.attempts {
            *attempt = attempt.filter(|a| !a.applied);
        }
        Some("a member sees the lock")
    }

    /// The agent writes: a renewal, an acquisition, or a release.
    fn send(&self, s: &mut State, g: &mut Gen) -> Option<&'static str> {
        let node = u8::from(g.flag());
        let configured = *g.pick(self.ttls);
        let n = &mut s.nodes[usize::from(node)];
        let lease = n.lease(node);
        let release = g.flag();
        let what = match n.holder(node, configured) {
            Holder::Me if release && !n.latched => "a release is sent",
            _ if release => return None,
            Holder::Me => "a renewal is sent",
            Holder::Free { .. } => "an acquisition is sent",
            Holder::Absent { until } if boot(NOW) >= until || n.deadline.is_some_and(|left| left > 0) => {
                "the lock object is made anew"
            }
            _ => return None,
        };
        let sent_now = |a: &Attempt| a.age == 0;
        if n.attempts.iter().flatten().any(sent_now) || [n.view, s.store].iter().any(|r| just_written(*r, node)) {
            return None;
        }
        let slot = n.attempts.iter_mut().take(self.attempts).find(|a| a.is_none())?;
        let ttl = if self.lasting { lease.ttl_to_write(boot(NOW), ms(configured), None) } else { ms(configured) };
        let ttl = (!release).then(|| u8::try_from(ttl / ms(1)).unwrap());
        *slot = Some(Attempt { age: 0, ttl, valid: n.current, applied: false });
        if release {
            n.deadline = None;
            n.permit = -1;
        }
        Some(what)
    }

    /// A write takes effect, or turns out to be too late.
    fn apply(&self, s: &mut State, g: &mut Gen) -> Result<Option<&'static str>, String> {
        let (node, slot) = (u8::from(g.flag()), g.below(2));
        let before = *s;
        let attempt = &mut s.nodes[usize::from(node)].attempts[slot];
        let Some(this) = attempt.as_mut().filter(|a| !a.applied) else { return Ok(None) };
        if !this.valid {
            *attempt = None;
            return Ok(Some("a write is refused"));
        }
        let Some(ttl) = this.ttl else {
            *attempt = None;
            if before.nodes[usize::from(node)].latched {
                return Err("the lock is released by one that may write".to_owned());
            }
            stored(s, Record::Free);
            return Ok(Some("the lock is released"));
        };
        this.applied = true;
        if let Record::Held { by, ttl, .. } = before.store
            && by != node
            && self.handing
            && before.since + 1 < ttl
        {
            return Err(format!("{} takes the lock {} ticks after its renewal", name(node), before.since));
        }
        let age = this.age;
        stored(s, Record::Held { by: node, ttl, sent: Some(age) });
        Ok(Some("a write is applied"))
    }

    /// The answer comes, or never will.
    fn answer(&self, s: &mut State, g: &mut Gen) -> Option<&'static str> {
        let (node, slot) = (u8::from(g.flag()), g.below(2));
        let n = &mut s.nodes[usize::from(node)];
        let this = n.attempts[slot].filter(|a| a.applied)?;
        let ttl = this.ttl?;
        let written = Record::Held { by: node, ttl, sent: Some(this.age) };
        n.saw(node, written, self.from_sending);
        n.current = s.store == written;
        n.attempts[slot] = None;
        Some("a write is answered")
    }
}

/// The store has another version: no write on the one before can succeed.
fn stored(s: &mut State, record: Record) {
    s.store = record;
    s.since = 0;
    for n in &mut s.nodes {
        n.current = false;
        for attempt in n.attempts.iter_mut().flatten() {
            attempt.valid = false;
        }
    }
}

/// A permit reaches the supervisor, PostgreSQL starts as primary or ends.
fn supervise(s: &mut State, g: &mut Gen) -> Option<&'static str> {
    let node = u8::from(g.flag());
    let n = &mut s.nodes[usize::from(node)];
    match g.below(3) {
        0 => {
            let left = n.deadline.filter(|left| *left != n.permit && n.closing.is_none())?;
            n.permit = left;
            Some("a permit")
        }
        1 => {
            let ours = n.holder(node, 6) == Holder::Me && n.deadline.is_some_and(|left| left > 0);
            if n.latched || !ours || n.fence().promoting(boot(NOW).0).is_err() {
                return None;
            }
            n.latched = true;
            Some("a start as primary")
        }
        _ => n.latched.then(|| {
            (n.latched, n.closing) = (false, None);
            "PostgreSQL ends"
        }),
    }
}

/// A new agent knows nothing of what the former one sent.
fn restart(s: &mut State, g: &mut Gen) -> &'static str {
    let node = u8::from(g.flag());
    let n = &mut s.nodes[usize::from(node)];
    let forget = |record: &mut Record| {
        if let Record::Held { by, sent, .. } = record
            && *by == node
        {
            *sent = None;
        }
    };
    forget(&mut s.store);
    n.view = s.store;
    (n.current, n.changed, n.deadline) = (true, 0, None);
    n.attempts = [None; 2];
    "an agent starts anew"
}

#[test]
fn two_members_never_may_write_at_once() {
    let bounds = Bounds { agent_restarts: false, ..Bounds::default() };
    explore(&bounds).nothing("lease and fence, the lock object is deleted");
    let bounds = Bounds { deletions: false, ..Bounds::default() };
    explore(&bounds).nothing("lease and fence, agents start anew");
    let bounds = Bounds { deletions: false, agent_restarts: false, handing: true, ..Bounds::default() };
    explore(&bounds).nothing("the lock changes hands by release or expiry only");
    if full() {
        let bounds = Bounds { deletions: false, agent_restarts: false, attempts: 2, ..Bounds::default() };
        explore(&bounds).nothing("lease and fence, two writes without answer");
    }
}

#[test]
fn a_ttl_may_be_changed() {
    if !full() {
        return;
    }
    let bounds = Bounds { ttls: &[6, 8], deletions: false, agent_restarts: false, ..Bounds::default() };
    explore(&bounds).nothing("lease and fence, the ttl changes");
    explore(&Bounds { lasting: false, ..bounds }).caught("a shortened ttl is written at once");
}

#[test]
fn a_smaller_margin_is_caught() {
    let bounds = || Bounds { deletions: false, agent_restarts: false, ..Bounds::default() };
    explore(&Bounds { k: 3, ..bounds() }).caught("K is longer than the margin allows for");
    explore(&Bounds { from_sending: false, ..bounds() }).caught("a deadline counts from the answer");
}
