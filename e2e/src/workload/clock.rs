//! The boot-time clock: one for all processes of this machine, pods included; it neither jumps nor stops.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Time since boot.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// When, on this clock, a moment of the wall clock was; zero for one before boot.
pub fn of(wall: Timestamp) -> Duration {
    let ago = Timestamp::now().duration_since(wall);
    let now = now();
    if ago.is_negative() { now + ago.unsigned_abs() } else { now.saturating_sub(ago.unsigned_abs()) }
}

/// The time of day, in UTC, of a moment of this clock: for people.
pub fn time_of_day(moment: Duration) -> String {
    let ago = now().saturating_sub(moment);
    let wall = Timestamp::now() - jiff::SignedDuration::try_from(ago).unwrap_or_default();
    wall.strftime("%H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_time_is_found_on_the_boot_clock() {
        let before = now();
        let found = of(Timestamp::now());
        assert!(found + Duration::from_millis(50) > before && found < now() + Duration::from_millis(50));
        let earlier = of(Timestamp::now() - jiff::SignedDuration::from_secs(2));
        assert!(before.abs_diff(earlier + Duration::from_secs(2)) < Duration::from_millis(50));
    }
}
