//! Quorum replication as a model: what is stored, what may still land, what PostgreSQL has loaded, who has flushed what; a leader that
//! asks the planner, a former one that still runs, elections. One commit matters: the last that was acknowledged.

use crate::gen_all::Gen;
use crate::quorum_names::{Ask, Guc, Memo, NOBODY, Plan, Sync, Wish, claim, members};
use crate::search::Model;

pub const MOST: usize = 5;

/// Bounds of a search, and which of the protections stand.
#[allow(clippy::struct_excessive_bools)]
pub struct Bounds {
    pub members: u8,
    pub lsn: u8,
    /// What people may ask for; the first is in force at first.
    pub wishes: &'static [Wish],
    pub elections: u8,
    pub postmaster_crashes: u8,
    pub agent_crashes: u8,
    pub config_changes: u8,
    /// A smaller quorum waits for the flush position at which the setting came into force.
    pub catch_up: bool,
    /// The setting is changed only after a confirmed write of `/sync`.
    pub settle: bool,
    /// `/sync` is changed only while the file says what is loaded.
    pub written: bool,
    /// A restart in place keeps the loaded setting, or claims `/sync` first.
    pub restart: bool,
    /// Whoever is promoted has claimed `/sync`, also when it is its own.
    pub claim: bool,
    /// Voters end their streams.
    pub cut: bool,
    /// `/sync` says by which rules an election goes, not the configuration.
    pub by_sync: bool,
    pub memo: Memo,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            members: 3,
            lsn: 2,
            wishes: &[Wish::Quorum(1)],
            elections: 0,
            postmaster_crashes: 0,
            agent_crashes: 0,
            config_changes: 0,
            catch_up: true,
            settle: true,
            written: true,
            restart: true,
            claim: true,
            cut: true,
            by_sync: true,
            memo: Memo::default(),
        }
    }
}

/// A PostgreSQL that is, was, or is about to be primary, and its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Primary {
    who: u8,
    running: bool,
    loaded: Guc,
    file: Guc,
    /// The agent knows what the file says.
    known: bool,
    /// The agent remembers the loaded setting over a restart of PostgreSQL.
    kept: bool,
    since: u8,
    /// `/sync` as the agent sees it; whether that is the newest.
    view: Sync,
    current: bool,
    settled: bool,
    epoch: u8,
    /// It knows that the lock is not its own any more: it has voted.
    over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    store: Sync,
    /// Writes on the present version that nobody waits for any more.
    limbo: [Option<Sync>; 2],
    present: Primary,
    former: Option<Primary>,
    /// Timeline and position of each member.
    log: [(u8, u8); MOST],
    /// Of each timeline: the one before, and where it began.
    began: [(u8, u8); 4],
    /// Who streams from the present, and from the former primary.
    stream: u8,
    stream_former: u8,
    /// Voters that take nothing from the former primary.
    held: u8,
    /// A candidate that has its votes (and its voters), not yet the claim.
    round: Option<(u8, u8)>,
    acked: (u8, u8),
    wish: Wish,
    left: [u8; 4],
}

const ELECTION: usize = 0;
const POSTMASTER: usize = 1;
const AGENT: usize = 2;
const CONFIG: usize = 3;

impl State {
    fn store(&mut self, sync: Sync) {
        self.store = sync;
        self.limbo = [None; 2];
        self.present.current = false;
        if let Some(former) = &mut self.former {
            former.current = false;
        }
        if self.round.take().is_some() {
            self.held = 0;
        }
    }

    fn linger(&mut self, sync: Sync) -> bool {
        if self.limbo.contains(&Some(sync)) {
            return true;
        }
        if self.limbo[1].is_some() {
            return false;
        }
        self.limbo[1] = Some(sync);
        self.limbo.sort_unstable();
        self.limbo.reverse();
        true
    }

    fn spend(&mut self, what: usize) -> bool {
        let left = &mut self.left[what];
        *left = left.wrapping_sub(1);
        *left != u8::MAX
    }

    /// On which timeline the log of a member of that timeline has this position.
    fn timeline(&self, mut epoch: u8, lsn: u8) -> u8 {
        while lsn <= self.began[usize::from(epoch)].1 && epoch > 1 {
            epoch = self.began[usize::from(epoch)].0;
        }
        epoch
    }

    /// The member has the commit.
    fn holds(&self, member: u8, (epoch, lsn): (u8, u8)) -> bool {
        let (e, l) = self.at(member);
        l >= lsn && (lsn == 0 || self.timeline(e, lsn) == epoch)
    }

    /// What a member has in common with a primary, as it stands on the primary's way.
    fn joined(&self, member: u8, epoch: u8, end: u8) -> (u8, u8) {
        let (e, l) = self.at(member);
        let same = (1..=l.min(end)).take_while(|lsn| self.timeline(e, *lsn) == self.timeline(epoch, *lsn)).count();
        self.reached(epoch, u8::try_from(same).unwrap_or(0))
    }

    fn reached(&self, epoch: u8, lsn: u8) -> (u8, u8) {
        (if lsn >= self.began[usize::from(epoch)].1 { epoch } else { self.timeline(epoch, lsn) }, lsn)
    }

    fn at(&self, member: u8) -> (u8, u8) {
        self.log[usize::from(member)]
    }

    fn primary(&mut self, former: bool) -> Option<&mut Primary> {
        if former { self.former.as_mut() } else { Some(&mut self.present) }
    }

    /// Runs as a primary now.
    fn writable(&self, member: u8) -> bool {
        (self.present.running && self.present.who == member) || self.former.is_some_and(|f| f.who == member)
    }
}

impl State {
    /// Which of the state's sets a member is in, and which of its roles it has.
    fn signature(&self, m: u8) -> (u64, u8, u8) {
        let mut bits = 0_u64;
        let mut put = |bit: bool| bits = bits << 1 | u64::from(bit);
        let mut sync = |s: &Sync| {
            put(s.leader == m);
            put(s.voters & 1 << m != 0);
        };
        sync(&self.store);
        self.limbo.iter().flatten().for_each(&mut sync);
        sync(&self.present.view);
        if let Some(former) = &self.former {
            sync(&former.view);
        }
        for p in self.former.iter().chain([&self.present]) {
            put(p.who == m);
            put(p.loaded.names & 1 << m != 0);
            put(p.file.names & 1 << m != 0);
        }
        for mask in [self.stream, self.stream_former, self.held, self.round.map_or(0, |(_, voters)| voters)] {
            put(mask & 1 << m != 0);
        }
        put(self.round.is_some_and(|(candidate, _)| candidate == m));
        let (epoch, lsn) = self.at(m);
        (bits, epoch, lsn)
    }

    /// The same with other numbers: member `m` becomes `to[m]`.
    fn renumber(&mut self, to: [u8; MOST]) {
        let one = |m: &mut u8| *m = to.get(usize::from(*m)).copied().unwrap_or(*m);
        let set = |mask: &mut u8| *mask = members(*mask).fold(0, |all, m| all | 1 << to[usize::from(m)]);
        let sync = |s: &mut Sync| {
            one(&mut s.leader);
            set(&mut s.voters);
        };
        sync(&mut self.store);
        self.limbo.iter_mut().flatten().for_each(sync);
        self.limbo.sort_unstable();
        self.limbo.reverse();
        for p in self.former.iter_mut().chain([&mut self.present]) {
            one(&mut p.who);
            set(&mut p.loaded.names);
            set(&mut p.file.names);
            sync(&mut p.view);
        }
        [&mut self.stream, &mut self.stream_former, &mut self.held].into_iter().for_each(set);
        if let Some((candidate, voters)) = &mut self.round {
            one(candidate);
            set(voters);
        }
        let log = self.log;
        for (from, to) in to.iter().enumerate() {
            self.log[usize::from(*to)] = log[from];
        }
    }
}

impl Model for Bounds {
    type State = State;

    /// Members are alike but for what they have and do.
    fn canonical(&self, s: &mut State) {
        let mut order: Vec<u8> = (0..self.members).collect();
        order.sort_by_key(|m| std::cmp::Reverse(s.signature(*m)));
        let mut to = [0, 1, 2, 3, 4];
        for (new, old) in order.iter().enumerate() {
            to[usize::from(*old)] = u8::try_from(new).unwrap_or(0);
        }
        s.renumber(to);
    }

    fn start(&self) -> Vec<State> {
        let present = Primary {
            who: 0,
            running: true,
            loaded: Guc::default(),
            file: Guc::default(),
            known: true,
            kept: true,
            since: 0,
            view: Sync::NONE,
            current: true,
            settled: false,
            epoch: 1,
            over: false,
        };
        let left = [self.elections, self.postmaster_crashes, self.agent_crashes, self.config_changes];
        let state = |wish: &Wish| State {
            store: Sync::NONE,
            limbo: [None; 2],
            present,
            former: None,
            log: [(1, 0); MOST],
            began: [(1, 0); 4],
            stream: 0,
            stream_former: 0,
            held: 0,
            round: None,
            acked: (0, 0),
            wish: *wish,
            left,
        };
        self.wishes.iter().map(state).collect()
    }

    fn check(&self, s: &State) -> Result<(), String> {
        let all = (1 << self.members) - 1;
        let without = members(all).filter(|m| !s.holds(*m, s.acked)).fold(0_u8, |mask, m| mask | 1 << m);
        for stored in s.limbo.iter().flatten().chain([&s.store]).filter(|stored| stored.leader != NOBODY) {
            for candidate in members(without) {
                if self.memo.elected(*stored, candidate, without & !(1 << candidate)) {
                    return Err(format!("m{candidate} lacks {:?} and could win under {stored:?}", s.acked));
                }
            }
            let p = &s.present;
            for guc in [p.loaded, p.file].iter().filter(|g| g.n > 0 && p.running && stored.leader == p.who) {
                if !self.memo.safe(*stored, *guc) {
                    return Err(format!("{stored:?} and {guc:?} may miss each other"));
                }
            }
        }
        Ok(())
    }

    fn step(&self, s: &mut State, g: &mut Gen) -> Result<Option<&'static str>, String> {
        let former = s.former.is_some() && g.flag();
        let done = match g.below(9) {
            0 => self.append(s, former),
            1 => self.stream(s, former, g),
            2 => self.agent(s, former, g),
            3 => load(s, former),
            4 if !former => land(s, g),
            5 if !former => crash(s, g),
            6 if !former => self.configure(s, g),
            7 if !former => self.elect(s, g)?,
            8 if former => {
                s.former = None;
                s.stream_former = 0;
                s.held = 0;
                Some("the former primary is gone")
            }
            _ => None,
        };
        if done.is_some() {
            acknowledge(s, false)?;
            acknowledge(s, true)?;
            if s.present.view.leader == NOBODY && s.store.leader == NOBODY {
                // Nobody promises anything now.
                s.acked = (0, 0);
            }
        }
        Ok(done)
    }
}

impl Bounds {
    fn append(&self, s: &mut State, former: bool) -> Option<&'static str> {
        let p = *s.primary(former)?;
        let log = &mut s.log[usize::from(p.who)];
        (p.running && log.1 < self.lsn).then(|| {
            log.1 += 1;
            "a commit is written"
        })
    }

    /// A standby flushes one record more, joins, or leaves.
    fn stream(&self, s: &mut State, former: bool, g: &mut Gen) -> Option<&'static str> {
        let p = *s.primary(former)?;
        let member = u8::try_from(g.below(usize::from(self.members))).ok()?;
        let bit = 1 << member;
        if !p.running || s.writable(member) || member == p.who {
            return None;
        }
        let streams = if former { s.stream_former } else { s.stream };
        if streams & bit == 0 {
            if s.at(member).0 > p.epoch || s.held & bit != 0 && (former || s.former.is_none() && s.round.is_some()) {
                return None;
            }
            s.stream &= !bit;
            s.stream_former &= !bit;
            *(if former { &mut s.stream_former } else { &mut s.stream }) |= bit;
            s.log[usize::from(member)] = s.joined(member, p.epoch, s.at(p.who).1);
            return Some("a standby joins");
        }
        if g.flag() {
            *(if former { &mut s.stream_former } else { &mut s.stream }) &= !bit;
            return Some("a standby leaves");
        }
        (s.at(member).1 < s.at(p.who).1).then(|| {
            s.log[usize::from(member)] = s.reached(p.epoch, s.at(member).1 + 1);
            "a standby flushes"
        })
    }

    /// The agent of a primary looks, asks the planner, and acts; or hears of `/sync`.
    fn agent(&self, s: &mut State, former: bool, g: &mut Gen) -> Option<&'static str> {
        let streams = if former { s.stream_former } else { s.stream };
        let (store, wish, log) = (s.store, s.wish, s.log);
        let p = s.primary(former)?;
        if g.flag() {
            return (!p.current).then(|| {
                p.view = store;
                p.current = true;
                "its agent hears of /sync"
            });
        }
        if former && p.view.leader != p.who {
            return None;
        }
        if p.running && wish == Wish::Off && p.view.leader == NOBODY {
            let done = p.known && p.file == Guc::default();
            (p.known, p.file) = (true, Guc::default());
            return (!done).then_some("synchronous_standby_names is emptied");
        }
        if !p.running {
            return self.start_again(s, g);
        }
        let lately = if g.flag() { p.loaded.names & !streams } else { 0 };
        let behind = members(streams).filter(|m| self.catch_up && log[usize::from(*m)].1 < p.since);
        let behind = behind.fold(lately, |mask, m| mask | 1 << m);
        let plan = self.memo.next_step(Ask {
            me: p.who,
            sync: p.view,
            settled: p.settled || !self.settle,
            loaded: p.loaded,
            written: if self.written { p.known.then_some(p.file) } else { Some(p.loaded) },
            streaming: streams | lately,
            behind,
            wish,
        });
        match plan {
            // Nobody but us could lead, and all who stream have what was acknowledged before.
            Plan::Steady if wish == Wish::Off && behind == 0 => write(s, former, Sync::NONE, g),
            Plan::Steady | Plan::Wait => None,
            Plan::Sync(sync) => write(s, former, sync, g),
            Plan::Names(guc) => {
                let p = s.primary(former)?;
                p.file = guc;
                p.known = g.flag();
                Some("synchronous_standby_names is written")
            }
        }
    }

    /// In place, or promoted after an election.
    fn start_again(&self, s: &mut State, g: &mut Gen) -> Option<&'static str> {
        let p = &mut s.present;
        if p.over {
            return None;
        }
        let promoted = s.log[usize::from(p.who)].0 < p.epoch;
        if !self.restart || p.kept || p.settled && p.view.leader == p.who || p.view.leader == NOBODY {
            if !p.kept || !self.restart {
                p.loaded = if p.view.leader == NOBODY { Guc::default() } else { claim(p.view, p.who, s.wish).1 };
            }
            let at = &mut s.log[usize::from(p.who)];
            if promoted {
                s.began[usize::from(p.epoch)] = *at;
                at.0 = p.epoch;
            }
            p.file = p.loaded;
            p.since = at.1;
            (p.running, p.known, p.kept) = (true, true, true);
            s.stream &= !(1 << p.who);
            s.stream_former &= !(1 << p.who);
            return Some(if promoted { "promoted" } else { "PostgreSQL starts again" });
        }
        let claimed = claim(p.view, p.who, s.wish).0;
        write(s, false, claimed, g).map(|_| "/sync is claimed before a start")
    }

    fn configure(&self, s: &mut State, g: &mut Gen) -> Option<&'static str> {
        let wish = *g.pick(self.wishes);
        (wish != s.wish && s.spend(CONFIG)).then(|| {
            s.wish = wish;
            "the configuration changes"
        })
    }

    /// A round is won, is given up, or its winner claims `/sync`.
    fn elect(&self, s: &mut State, g: &mut Gen) -> Result<Option<&'static str>, String> {
        let Some((candidate, voters)) = s.round else {
            let candidate = u8::try_from(g.below(usize::from(self.members))).unwrap_or(0);
            if s.former.is_some() || s.store.leader == NOBODY || s.writable(candidate) || !s.spend(ELECTION) {
                return Ok(None);
            }
            // In priority mode nobody leads who is not listed.
            let listed = s.store.leader == candidate || s.store.voters & 1 << candidate != 0;
            if matches!(s.wish, Wish::Priority(_)) && !listed {
                return Ok(None);
            }
            let may = |m: &u8| *m != candidate && !s.writable(*m) && s.at(*m) <= s.at(candidate);
            let voters = members((1 << self.members) - 1).filter(may).filter(|_| g.flag());
            let voters = voters.fold(0_u8, |mask, m| mask | 1 << m);
            let free = !self.by_sync && s.wish == Wish::Off;
            if !free && !self.memo.elected(s.store, candidate, voters) {
                return Ok(None);
            }
            s.round = Some((candidate, voters));
            s.present.over |= voters & 1 << s.present.who != 0;
            if self.cut && (s.store.q > 0 || !matches!(s.wish, Wish::Priority(_))) {
                s.held = voters;
                s.stream &= !voters;
            }
            return Ok(Some("an election is won"));
        };
        if g.flag() {
            s.round = None;
            s.held = 0;
            return Ok(Some("the winner gives up"));
        }
        let own = s.store.leader == candidate && !self.claim;
        let (claimed, names) = claim(s.store, candidate, s.wish);
        if !s.holds(candidate, s.acked) {
            return Err(format!("m{candidate} claims the lead with the votes of {voters:#b} and lacks {:?}", s.acked));
        }
        let (former, limbo, held) = (s.present, s.limbo, s.held);
        s.store(claimed);
        if own {
            s.limbo = limbo;
        }
        s.held = if self.cut { held | 1 << candidate } else { 0 };
        s.former = (former.running && former.who != candidate).then_some(Primary { current: false, ..former });
        s.stream_former = if s.former.is_some() { s.stream & !(1 << candidate) } else { 0 };
        s.stream = 0;
        s.present = Primary {
            who: candidate,
            running: false,
            loaded: names,
            file: names,
            known: true,
            kept: own,
            since: 0,
            view: claimed,
            current: true,
            settled: g.flag(),
            epoch: former.epoch + 1,
            over: false,
        };
        Ok(Some("/sync is claimed"))
    }
}

/// PostgreSQL loads what the file says.
fn load(s: &mut State, former: bool) -> Option<&'static str> {
    let at = s.log;
    let p = s.primary(former)?;
    (p.running && p.loaded != p.file).then(|| {
        p.loaded = p.file;
        p.since = at[usize::from(p.who)].1;
        "the setting is loaded"
    })
}

/// A write that nobody waits for any more lands.
fn land(s: &mut State, g: &mut Gen) -> Option<&'static str> {
    let sync = (*g.pick(&s.limbo))?;
    s.store(sync);
    Some("a late write of /sync lands")
}

/// Compare-and-swap: done, refused, or its outcome stays unknown.
fn write(s: &mut State, former: bool, sync: Sync, g: &mut Gen) -> Option<&'static str> {
    let p = s.primary(former)?;
    p.settled = false;
    if !p.current {
        return Some("a write of /sync is refused");
    }
    match g.below(3) {
        0 => {
            s.store(sync);
            let p = s.primary(former)?;
            (p.view, p.current, p.settled) = (sync, true, true);
            Some("/sync is written")
        }
        1 => Some("a write of /sync fails"),
        _ => s.linger(sync).then_some("a write of /sync has no answer"),
    }
}

/// A commit is acknowledged as soon as the loaded setting allows it.
fn acknowledge(s: &mut State, former: bool) -> Result<(), String> {
    let Some(p) = s.primary(former).map(|p| *p) else { return Ok(()) };
    if !p.running {
        return Ok(());
    }
    let streams = if former { s.stream_former } else { s.stream };
    for lsn in (s.began[usize::from(p.epoch)].1 + 1..=s.at(p.who).1).rev() {
        let has = |m: &u8| s.at(*m).1 >= lsn;
        let flushed = members(p.loaded.names & streams).filter(has).count();
        if flushed < usize::from(p.loaded.n) {
            continue;
        }
        let solo = p.loaded.n == 0;
        let promised = p.view.leader == p.who
            && if solo { s.wish != Wish::Off && u32::from(p.view.q) >= p.view.voters.count_ones() } else { true };
        if !promised {
            return Ok(());
        }
        if former && !s.holds(s.present.who, (p.epoch, lsn)) {
            return Err(format!("m{} acknowledged {lsn} behind the back of m{}", p.who, s.present.who));
        }
        s.acked = s.acked.max((p.epoch, lsn));
        return Ok(());
    }
    Ok(())
}

fn crash(s: &mut State, g: &mut Gen) -> Option<&'static str> {
    if g.flag() {
        if !s.present.running || !s.spend(POSTMASTER) {
            return None;
        }
        s.present.running = false;
        s.stream = 0;
        return Some("PostgreSQL crashes");
    }
    if !s.spend(AGENT) {
        return None;
    }
    let (store, at) = (s.store, s.at(s.present.who).1);
    let p = &mut s.present;
    (p.known, p.kept, p.settled) = (false, p.running, false);
    (p.view, p.current, p.since) = (store, true, at);
    Some("the agent restarts")
}
