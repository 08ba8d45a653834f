//! The clocks: CLOCK_BOOTTIME for every decision, the wall clock for what is written down, and a timer on boot time.

use std::time::{SystemTime, UNIX_EPOCH};

use matriarch_ha::event::Now;
use matriarch_ha::types::{Boot, Wall};
use rustix::time::{ClockId, clock_gettime};

/// Microseconds on CLOCK_BOOTTIME.
pub fn boot() -> Boot {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec).unwrap_or(0) / 1000;
    Boot(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// Both clocks.
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { boot: boot(), wall: Wall(i64::try_from(wall.as_micros()).unwrap_or(i64::MAX)) }
}
