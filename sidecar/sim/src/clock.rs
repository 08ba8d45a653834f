//! A node's CLOCK_BOOTTIME: its own origin, its own rate, and in `clock hell` standing still.

use matriarch_ha::mutants::{self, Mutant};
use matriarch_ha::types::Boot;

use crate::queue::Time;

/// Re-anchored whenever its rate changes.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    anchor: Time,
    boot: u64,
    ppm: i64,
    stopped: bool,
    /// What the wall clock shows more than the true time, in microseconds.
    pub(crate) wall_offset: i64,
}

impl Clock {
    pub(crate) fn new(boot: u64) -> Self {
        Self { anchor: 0, boot, ppm: 0, stopped: false, wall_offset: 0 }
    }

    /// One that shows `boot` now.
    pub(crate) fn starting_at(now: Time, boot: u64) -> Self {
        Self { anchor: now, ..Self::new(boot) }
    }

    pub(crate) fn boot(&self, now: Time) -> Boot {
        Boot(self.boot + self.elapsed(now - self.anchor))
    }

    /// Microseconds shown in a true second.
    fn rate(&self) -> u64 {
        let ppm = if mutants::on(Mutant::ClocksNotBound) { self.ppm * 100 } else { self.ppm };
        u64::try_from(1_000_000 + ppm).unwrap_or(1_000_000)
    }

    fn elapsed(&self, world: u64) -> u64 {
        if self.stopped {
            return 0;
        }
        let rate = self.rate();
        u64::try_from(u128::from(world) * u128::from(rate) / 1_000_000).unwrap_or(u64::MAX)
    }

    /// When the clock will show `boot`: not before `now`; none while it stands still.
    pub(crate) fn when(&self, now: Time, boot: Boot) -> Option<Time> {
        let current = self.boot(now);
        if boot <= current {
            return Some(now);
        }
        if self.stopped {
            return None;
        }
        let rate = self.rate();
        let world = (u128::from(boot.0 - current.0) * 1_000_000).div_ceil(u128::from(rate));
        // The anchor's own rounding may leave it one microsecond short.
        Some(now + u64::try_from(world).unwrap_or(u64::MAX / 2) + 1)
    }

    pub(crate) fn set_rate(&mut self, now: Time, ppm: i64) {
        self.anchor(now);
        self.ppm = ppm;
    }

    pub(crate) fn set_stopped(&mut self, now: Time, stopped: bool) {
        self.anchor(now);
        self.stopped = stopped;
    }

    fn anchor(&mut self, now: Time) {
        self.boot = self.boot(now).0;
        self.anchor = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_comes_to_its_time_sooner() {
        let mut clock = Clock::new(5_000_000);
        clock.set_rate(0, 1_000);
        let at = clock.when(0, Boot(15_000_000)).unwrap();
        assert!((9_990_000..9_990_100).contains(&at), "{at}");
        assert!(clock.boot(at) >= Boot(15_000_000));
        clock.set_stopped(at, true);
        assert_eq!(clock.boot(at + 1_000_000), clock.boot(at));
        assert_eq!(clock.when(at, Boot(16_000_000)), None);
    }
}
