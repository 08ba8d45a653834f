//! The fence: until when a postmaster may be writable, and what happens when that time has passed.
//!
//! Every time is `CLOCK_BOOTTIME` in microseconds and an input; nothing here reads a clock or sends a signal. The
//! supervisor owns a [`Fence`], arms one timer for [`Fence::next_timer`] and does what [`Fence::due`] says. The agent
//! computes its deadlines by [`Timing`].
//!
//! * **Permit**: a postmaster may be or become writable while `now < deadline`; at the deadline itself it may not.
//! * **Latch**: set by start-as-primary and by promote, *before* either happens, and cleared only by the exit of the
//!   postmaster and of all of its processes. A promotion in flight is fenced, whether or not it came to anything.
//! * **Closing**: once the fence has closed on a latched postmaster, no later permit opens it for that postmaster.

use crate::mutants::{self, Mutant};

/// From SIGQUIT to SIGKILL. PostgreSQL's own answer to SIGQUIT takes some ten milliseconds; longer than this means that
/// the postmaster is stopped, hangs, or is gone and left processes behind.
pub const QUIT_TO_KILL_US: u64 = 300_000;
/// From one SIGKILL to all that is left to the next one.
pub const KILL_EVERY_US: u64 = 20_000;
/// Longest time from the deadline to "no process of PostgreSQL runs" that the margin allows for (K).
pub const K_US: u64 = 900_000;
/// How far the rate of a clock may be off (ρ), in parts per million.
pub const RHO_PPM: u64 = 1_000;
/// The margin is never smaller than this, so that it does not hug the bound where ttl is short.
pub const LEAST_MARGIN_US: u64 = 1_500_000;

/// As what a postmaster is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It will accept writes.
    Primary,
    /// It will not, before it is promoted.
    Standby,
}

/// Until when a postmaster may be writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Permit {
    /// None was ever given.
    #[default]
    Never,
    /// While `now` is below this.
    Until(u64),
    /// Without end, until the next permit: pause mode.
    Lifted,
}

/// Why the fence says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// A permit or a lift that is not newer than what was heard already.
    #[error("sequence number {given} is not above {highest}")]
    OldSequence {
        /// Of the refused one.
        given: u64,
        /// The highest so far.
        highest: u64,
    },
    /// Nobody ever said that PostgreSQL may be writable here.
    #[error("no permit was given")]
    NoPermit,
    /// The time has passed.
    #[error("the permit ended {ago_us} us ago")]
    Ended {
        /// How long ago.
        ago_us: u64,
    },
    /// The fence has closed on the running postmaster, which is being stopped.
    #[error("the fence has closed")]
    Closing,
}

/// What the supervisor has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceAction {
    /// Nothing before [`Fence::next_timer`].
    Nothing,
    /// The fence closes: SIGQUIT to the postmaster, and say so.
    Quit {
        /// The deadline that passed.
        deadline_us: u64,
    },
    /// SIGKILL to everything that is left.
    Kill,
}

/// The supervisor's side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    permit: Permit,
    seq: u64,
    latched: bool,
    /// When the next SIGKILL is due; some: the fence has closed on the running postmaster.
    kill_at: Option<u64>,
}

impl Fence {
    /// One that permits nothing, as a container that (re)starts has it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A permit. The deadline may lie before an earlier one, or in the past: then the fence closes at once.
    pub fn permit(&mut self, seq: u64, deadline_us: u64) -> Result<(), FenceError> {
        self.newer(seq)?;
        self.permit = Permit::Until(deadline_us);
        Ok(())
    }

    /// No deadline until the next permit. A fence that has closed goes on closing.
    pub fn lift(&mut self, seq: u64) -> Result<(), FenceError> {
        self.newer(seq)?;
        self.permit = Permit::Lifted;
        Ok(())
    }

    fn newer(&mut self, seq: u64) -> Result<(), FenceError> {
        if seq <= self.seq && !mutants::on(Mutant::OldSequence) {
            return Err(FenceError::OldSequence { given: seq, highest: self.seq });
        }
        self.seq = seq;
        Ok(())
    }

    /// Whether a postmaster may start as primary, or be promoted, now.
    pub fn may_write(&self, now: u64) -> Result<(), FenceError> {
        if self.kill_at.is_some() {
            return Err(FenceError::Closing);
        }
        if mutants::on(Mutant::FenceWithoutPermit) {
            return Ok(());
        }
        match self.permit {
            Permit::Lifted => Ok(()),
            Permit::Never => Err(FenceError::NoPermit),
            Permit::Until(deadline) if now < deadline => Ok(()),
            Permit::Until(deadline) => Err(FenceError::Ended { ago_us: now - deadline }),
        }
    }

    /// To be called before a postmaster is started. As primary it needs a permit and sets the latch.
    pub fn starting(&mut self, role: Role, now: u64) -> Result<(), FenceError> {
        match role {
            Role::Primary => self.promoting(now),
            Role::Standby => Ok(()),
        }
    }

    /// To be called before a standby is asked to promote: needs a permit and sets the latch.
    pub fn promoting(&mut self, now: u64) -> Result<(), FenceError> {
        self.may_write(now)?;
        self.latched = !mutants::on(Mutant::NoLatch);
        Ok(())
    }

    /// The postmaster and every process below it are gone (or it never came to be).
    pub fn exited(&mut self) {
        self.latched = false;
        self.kill_at = None;
    }

    /// When [`Self::due`] has to be asked again: none while nothing that is latched runs, or without a deadline.
    pub fn next_timer(&self) -> Option<u64> {
        match (self.kill_at, self.permit) {
            (Some(at), _) => Some(at),
            (None, Permit::Until(deadline)) if self.latched => Some(deadline),
            _ => None,
        }
    }

    /// What is to be done at `now`; to be done, as each answer is given once.
    pub fn due(&mut self, now: u64) -> FenceAction {
        match (self.kill_at, self.permit) {
            (Some(at), _) if now >= at => {
                self.kill_at = Some(now.saturating_add(KILL_EVERY_US));
                FenceAction::Kill
            }
            (None, Permit::Until(deadline_us)) if self.latched && now >= deadline_us => {
                self.kill_at = Some(now.saturating_add(QUIT_TO_KILL_US));
                FenceAction::Quit { deadline_us }
            }
            _ => FenceAction::Nothing,
        }
    }

    /// The running postmaster is or may become primary.
    pub fn latched(&self) -> bool {
        self.latched
    }

    /// The fence has closed on the running postmaster.
    pub fn closing(&self) -> bool {
        self.kill_at.is_some()
    }

    /// The highest sequence number so far.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Until when a postmaster may be writable.
    pub fn granted(&self) -> Permit {
        self.permit
    }
}

/// The margin M between the end of a lock's ttl, as its holder counts it, and the holder's deadline.
///
/// An observer whose clock runs fast by ρ takes the lock after a true time of `ttl/(1+ρ)` at the earliest; a holder whose
/// clock runs slow by ρ reaches its deadline `ttl−M` after `(ttl−M)/(1−ρ)` at the latest, and needs K to stop. From
/// `(ttl−M)/(1−ρ) + K ≤ ttl/(1+ρ)` follows that M ≥ 2ρ·ttl + K is enough. Rounded up to a whole microsecond, and at least
/// [`LEAST_MARGIN_US`].
pub fn margin(ttl_us: u64, rho_ppm: u64, k_us: u64) -> u64 {
    let drift = (u128::from(ttl_us) * u128::from(rho_ppm)).saturating_mul(2).div_ceil(1_000_000);
    u64::try_from(drift).unwrap_or(u64::MAX).saturating_add(k_us).max(LEAST_MARGIN_US)
}

/// The deadline that a confirmed acquire, renewal or failsafe round gives: when it was sent, plus ttl, minus the margin.
/// Where the margin eats the whole ttl it is the time of sending: no permit at all.
pub fn deadline(sent_at_us: u64, ttl_us: u64, margin_us: u64) -> u64 {
    sent_at_us.saturating_add(ttl_us.saturating_sub(margin_us))
}

/// Why a configuration cannot be kept safe and alive at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A leader would be fenced although it renews in time.
    #[error(
        "ttl of {ttl_us} us is too short: after the margin of {margin_us} us, {left_us} us are left, and loop_wait plus \
         two retry_timeouts need {needed_us} us"
    )]
    TtlTooShort {
        /// The lock's ttl.
        ttl_us: u64,
        /// [`margin`] of it.
        margin_us: u64,
        /// What remains.
        left_us: u64,
        /// What a cycle with one retry may take.
        needed_us: u64,
    },
}

/// The times of a configuration that was found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    ttl_us: u64,
    margin_us: u64,
}

impl Timing {
    /// Checks that `ttl − M ≥ loop_wait + 2·retry_timeout` (Patroni's rule with the margin taken off). ttl 10 s,
    /// `loop_wait` 2 s and `retry_timeout` 3 s fit: 8.5 s ≥ 8 s.
    pub fn new(ttl_us: u64, loop_wait_us: u64, retry_timeout_us: u64) -> Result<Self, TimingError> {
        let margin_us = margin(ttl_us, RHO_PPM, K_US);
        let left_us = ttl_us.saturating_sub(margin_us);
        let needed_us = loop_wait_us.saturating_add(retry_timeout_us.saturating_mul(2));
        if left_us == 0 || left_us < needed_us {
            return Err(TimingError::TtlTooShort { ttl_us, margin_us, left_us, needed_us });
        }
        Ok(Self { ttl_us, margin_us })
    }

    /// The lock's ttl.
    pub fn ttl_us(&self) -> u64 {
        self.ttl_us
    }

    /// M.
    pub fn margin_us(&self) -> u64 {
        self.margin_us
    }

    /// The deadline of what was sent at `sent_at_us` and confirmed since.
    pub fn deadline(&self, sent_at_us: u64) -> u64 {
        deadline(sent_at_us, self.ttl_us, self.margin_us)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000;

    fn primary_until(deadline: u64) -> Fence {
        let mut fence = Fence::new();
        fence.permit(1, deadline).unwrap();
        fence.starting(Role::Primary, 0).unwrap();
        fence
    }

    #[test]
    fn closes_at_the_deadline_to_the_microsecond() {
        let mut fence = primary_until(10 * S);
        assert_eq!(fence.next_timer(), Some(10 * S));
        assert_eq!(fence.may_write(10 * S - 1), Ok(()));
        assert_eq!(fence.due(10 * S - 1), FenceAction::Nothing);
        assert_eq!(fence.may_write(10 * S), Err(FenceError::Ended { ago_us: 0 }));
        assert_eq!(fence.due(10 * S), FenceAction::Quit { deadline_us: 10 * S });
    }

    #[test]
    fn kills_300_ms_after_quit_and_again_until_nothing_is_left() {
        let mut fence = primary_until(10 * S);
        // The whole container was frozen past the deadline: 300 ms count from the thaw.
        let thaw = 25 * S + 7;
        assert_eq!(fence.due(thaw), FenceAction::Quit { deadline_us: 10 * S });
        assert_eq!(fence.due(thaw), FenceAction::Nothing);
        assert_eq!(fence.next_timer(), Some(thaw + 300_000));
        assert_eq!(fence.due(thaw + 299_999), FenceAction::Nothing);
        assert_eq!(fence.due(thaw + 300_000), FenceAction::Kill);
        assert_eq!(fence.due(thaw + 319_999), FenceAction::Nothing);
        assert_eq!(fence.due(thaw + 320_000), FenceAction::Kill);
        fence.exited();
        assert_eq!(fence.due(thaw + 340_000), FenceAction::Nothing);
        assert_eq!(fence.next_timer(), None);
        assert!(!fence.latched() && !fence.closing());
    }

    #[test]
    fn a_promotion_in_flight_is_fenced() {
        let mut fence = Fence::new();
        fence.starting(Role::Standby, 0).unwrap();
        assert_eq!(fence.promoting(0), Err(FenceError::NoPermit));
        assert!(!fence.latched(), "a refused promotion sets no latch");
        fence.permit(1, 5 * S).unwrap();
        assert_eq!(fence.next_timer(), None, "a standby needs no fence");
        fence.promoting(5 * S - 1).unwrap();
        assert_eq!(fence.due(5 * S), FenceAction::Quit { deadline_us: 5 * S });
    }

    #[test]
    fn a_standby_lives_past_every_deadline() {
        let mut fence = Fence::new();
        fence.permit(1, 5 * S).unwrap();
        fence.starting(Role::Standby, 0).unwrap();
        assert_eq!(fence.due(100 * S), FenceAction::Nothing);
        assert_eq!(fence.promoting(100 * S), Err(FenceError::Ended { ago_us: 95 * S }));
    }

    #[test]
    fn only_exit_clears_the_latch_and_the_permit_stays() {
        let mut fence = primary_until(10 * S);
        fence.starting(Role::Standby, 0).unwrap();
        assert!(fence.latched());
        fence.exited();
        assert!(!fence.latched());
        assert_eq!(fence.may_write(10 * S - 1), Ok(()), "the time that was granted is not used up by a crash");
    }

    #[test]
    fn sequence_numbers_only_grow() {
        let mut fence = Fence::new();
        assert_eq!(fence.permit(0, S), Err(FenceError::OldSequence { given: 0, highest: 0 }));
        fence.permit(5, 10 * S).unwrap();
        assert_eq!(fence.permit(5, 20 * S), Err(FenceError::OldSequence { given: 5, highest: 5 }));
        assert_eq!(fence.permit(4, 20 * S), Err(FenceError::OldSequence { given: 4, highest: 5 }));
        assert_eq!(fence.lift(5), Err(FenceError::OldSequence { given: 5, highest: 5 }));
        assert_eq!(fence.granted(), Permit::Until(10 * S), "a refused one changes nothing");
        fence.lift(6).unwrap();
        assert_eq!((fence.seq(), fence.granted()), (6, Permit::Lifted));
    }

    #[test]
    fn a_release_takes_the_rest_back() {
        let mut fence = primary_until(10 * S);
        fence.permit(2, 3 * S).unwrap();
        assert_eq!(fence.next_timer(), Some(3 * S));
        assert_eq!(fence.due(3 * S - 1), FenceAction::Nothing);
        assert_eq!(fence.due(3 * S), FenceAction::Quit { deadline_us: 3 * S });
    }

    #[test]
    fn a_late_permit_does_not_save_a_postmaster_but_serves_the_next_one() {
        let mut fence = primary_until(10 * S);
        fence.due(10 * S);
        fence.permit(2, 99 * S).unwrap();
        fence.lift(3).unwrap();
        assert_eq!(fence.may_write(10 * S + 1), Err(FenceError::Closing));
        assert_eq!(fence.due(10 * S + QUIT_TO_KILL_US), FenceAction::Kill);
        fence.exited();
        assert_eq!(fence.starting(Role::Primary, 11 * S), Ok(()));
    }

    #[test]
    fn lifted_means_no_deadline_until_the_next_permit() {
        let mut fence = primary_until(10 * S);
        fence.lift(2).unwrap();
        assert_eq!((fence.next_timer(), fence.due(u64::MAX)), (None, FenceAction::Nothing));
        fence.permit(3, 20 * S).unwrap();
        assert_eq!(fence.due(20 * S), FenceAction::Quit { deadline_us: 20 * S });
    }

    #[test]
    fn margins_and_deadlines() {
        assert_eq!(margin(10 * S, RHO_PPM, K_US), 1_500_000, "20 ms + 900 ms, but never below 1.5 s");
        assert_eq!(margin(300 * S, RHO_PPM, K_US), 1_500_000);
        assert_eq!(margin(300 * S + 1, RHO_PPM, K_US), 1_500_001, "rounded up");
        assert_eq!(margin(1000 * S, RHO_PPM, K_US), 2_900_000);
        assert_eq!(margin(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(deadline(100 * S, 10 * S, 1_500_000), 108_500_000);
        assert_eq!(deadline(100 * S, S, 1_500_000), 100 * S);
        assert_eq!(deadline(u64::MAX, S, 0), u64::MAX);
    }

    #[test]
    fn a_configuration_leaves_time_to_renew() {
        let timing = Timing::new(10 * S, 2 * S, 3 * S).unwrap();
        assert_eq!((timing.ttl_us(), timing.margin_us(), timing.deadline(0)), (10 * S, 1_500_000, 8_500_000));
        assert!(Timing::new(9_500_000, 2 * S, 3 * S).is_ok());
        assert_eq!(
            Timing::new(9_499_999, 2 * S, 3 * S),
            Err(TimingError::TtlTooShort {
                ttl_us: 9_499_999,
                margin_us: 1_500_000,
                left_us: 7_999_999,
                needed_us: 8 * S
            })
        );
        assert!(Timing::new(S, 0, 0).is_err());
        assert!(Timing::new(30 * S, 10 * S, 10 * S).is_err(), "Patroni's own default leaves no room for a margin");
        assert!(Timing::new(u64::MAX, u64::MAX, u64::MAX).is_err());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Permit(u64, u64),
        Lift(u64),
        Start(bool),
        Promote,
        Exit,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..9_u64, 0..4_000_000_u64).prop_map(|(seq, at)| Step::Permit(seq, at)),
            (0..9_u64).prop_map(Step::Lift),
            any::<bool>().prop_map(Step::Start),
            Just(Step::Promote),
            Just(Step::Exit),
            (0..500_000_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// A supervisor that asks at every timer never leaves a latched postmaster unfenced past a deadline.
        #[test]
        fn nothing_latched_outlives_its_permit(steps in prop::collection::vec(step(), 0..60)) {
            let (mut fence, mut now) = (Fence::new(), 0);
            let mut quit_at = None;
            for step in steps {
                match step {
                    Step::Permit(seq, at) => { let _ = fence.permit(seq + now / 300_000, at); }
                    Step::Lift(seq) => { let _ = fence.lift(seq + now / 300_000); }
                    Step::Start(primary) if !fence.latched() => {
                        let role = if primary { Role::Primary } else { Role::Standby };
                        let _ = fence.starting(role, now);
                    }
                    Step::Promote => { let _ = fence.promoting(now); }
                    Step::Start(_) => {}
                    Step::Exit => { fence.exited(); quit_at = None; }
                    Step::Wait(time) => {
                        let until = now + time;
                        while let Some(at) = fence.next_timer().filter(|at| *at <= until) {
                            now = now.max(at);
                            match fence.due(now) {
                                FenceAction::Nothing => prop_assert!(false, "a timer without cause"),
                                FenceAction::Quit { .. } => {
                                    prop_assert!(quit_at.is_none(), "quit once");
                                    quit_at = Some(now);
                                }
                                FenceAction::Kill => {
                                    prop_assert!(now >= quit_at.unwrap_or(u64::MAX) + QUIT_TO_KILL_US);
                                }
                            }
                        }
                        now = until;
                        if fence.latched() && !fence.closing() {
                            match fence.granted() {
                                Permit::Until(deadline) => prop_assert!(now < deadline),
                                Permit::Lifted => {}
                                Permit::Never => prop_assert!(false, "latched without a permit"),
                            }
                        }
                    }
                }
            }
        }
    }
}
