//! How a stop becomes harder with time, without any I/O: the asked signal, SIGQUIT, SIGKILL to all that is left.

use matriarch_ha::fence::{KILL_EVERY_US, QUIT_TO_KILL_US};
use matriarch_supervisor::protocol::StopMode;

/// What a postmaster that was killed leaves behind gets SIGQUIT at once and SIGKILL after this.
pub const ORPHANS_US: u64 = 100_000;
/// What is left after an exit of its own is the log collector, which writes its last lines and ignores SIGTERM, or what
/// an `archive_command` left running, which SIGTERM ends: neither accepts writes.
pub const LINGERERS_US: u64 = 1_000_000;

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Nothing,
    /// SIGINT to the postmaster.
    Interrupt,
    /// SIGTERM to what the postmaster left behind.
    Terminate,
    /// SIGQUIT to the postmaster, or to what it left behind.
    Quit,
    /// SIGKILL to all that is left.
    Kill,
}

/// A stop in progress, or none.
#[derive(Debug, Default)]
pub struct Stopping {
    quit_at: Option<u64>,
    kill_at: Option<u64>,
    /// SIGQUIT was sent: a fast stop asked for now is no step back.
    quit: bool,
}

impl Stopping {
    /// A stop is asked for. A second one may shorten the first one, never lengthen it.
    pub fn stop(&mut self, mode: StopMode, timeout_ms: u64, now: u64) -> Step {
        match mode {
            _ if self.quit => Step::Nothing,
            StopMode::Fast => {
                let at = now.saturating_add(timeout_ms.saturating_mul(1000));
                self.quit_at = Some(self.quit_at.map_or(at, |earlier| earlier.min(at)));
                Step::Interrupt
            }
            StopMode::Immediate => {
                self.quit_at = Some(now);
                self.due(now)
            }
        }
    }

    /// The postmaster itself is gone and something is left.
    pub fn orphaned(&mut self, killed: bool, now: u64) -> Step {
        let wait = if killed { ORPHANS_US } else { LINGERERS_US };
        let at = now.saturating_add(wait);
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
        self.quit_at = None;
        if killed && !self.quit {
            self.quit = true;
            Step::Quit
        } else if killed {
            Step::Nothing
        } else {
            Step::Terminate
        }
    }

    /// Nothing is left.
    pub fn exited(&mut self) {
        *self = Self::default();
    }

    /// When to ask [`Self::due`].
    pub fn next_timer(&self) -> Option<u64> {
        self.quit_at.into_iter().chain(self.kill_at).min()
    }

    /// What is to be done, once.
    pub fn due(&mut self, now: u64) -> Step {
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = Some(now.saturating_add(KILL_EVERY_US));
            return Step::Kill;
        }
        if self.quit_at.is_some_and(|at| now >= at) {
            self.quit_at = None;
            self.quit = true;
            self.kill_at = Some(now.saturating_add(QUIT_TO_KILL_US));
            return Step::Quit;
        }
        Step::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    #[test]
    fn fast_then_immediate_then_kill() {
        let mut stop = Stopping::default();
        assert_eq!(stop.stop(StopMode::Fast, 50, 0), Step::Interrupt);
        assert_eq!(stop.due(50 * MS - 1), Step::Nothing);
        assert_eq!(stop.due(50 * MS), Step::Quit);
        assert_eq!(stop.due(350 * MS - 1), Step::Nothing);
        assert_eq!(stop.due(350 * MS), Step::Kill);
        assert_eq!(stop.next_timer(), Some(370 * MS));
        stop.exited();
        assert_eq!((stop.next_timer(), stop.due(u64::MAX)), (None, Step::Nothing));
    }

    #[test]
    fn a_second_stop_never_lengthens_the_first() {
        let mut stop = Stopping::default();
        stop.stop(StopMode::Fast, 50, 0);
        assert_eq!(stop.stop(StopMode::Fast, 5000, 10 * MS), Step::Interrupt);
        assert_eq!(stop.next_timer(), Some(50 * MS));
        assert_eq!(stop.stop(StopMode::Immediate, 0, 20 * MS), Step::Quit);
        assert_eq!(stop.stop(StopMode::Fast, 0, 30 * MS), Step::Nothing);
        assert_eq!(stop.due(320 * MS), Step::Kill);
    }

    #[test]
    fn orphans_of_a_killed_postmaster_are_ended_at_once() {
        let mut stop = Stopping::default();
        assert_eq!(stop.orphaned(true, 7), Step::Quit);
        assert_eq!(stop.due(7 + ORPHANS_US), Step::Kill);
        let mut stop = Stopping::default();
        assert_eq!(stop.orphaned(false, 7), Step::Terminate);
        assert_eq!(stop.due(7 + LINGERERS_US - 1), Step::Nothing);
        assert_eq!(stop.due(7 + LINGERERS_US), Step::Kill);
    }
}
