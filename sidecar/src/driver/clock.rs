//! The clocks: `CLOCK_BOOTTIME` for every decision, the wall clock for what is written down, and a timer on boot time.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use matriarch_ha::event::Now;
use matriarch_ha::types::{Boot, Wall};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Microseconds on `CLOCK_BOOTTIME`.
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

/// A timer on `CLOCK_BOOTTIME`, which neither `Instant` nor tokio's timers are: they stand still while the machine sleeps.
pub struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// Not set.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "unsound only for types whose descriptor may change or close; an `OwnedFd`'s does not"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { fd })
    }

    /// Goes off at `at`, and not at any earlier setting. A moment that has passed goes off at once.
    pub fn set(&self, at: Boot) -> io::Result<()> {
        let micros = at.0.max(1); // zero would disarm it
        let it_value = Timespec {
            tv_sec: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(micros % 1_000_000 * 1000).unwrap_or(0),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval, it_value })?;
        Ok(())
    }

    /// Waits until it goes off; once for each setting.
    pub async fn rung(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut count = [0; 8];
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut count)?)) {
                Ok(result) => return result.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_timer_rings_once_at_its_last_setting() {
        let timer = Timer::new().unwrap();
        let start = boot();
        timer.set(start.plus_ms(5)).unwrap();
        timer.set(start.plus_ms(40)).unwrap();
        timer.rung().await.unwrap();
        assert!(boot().ms_since(start) >= 40);
        timer.set(Boot(0)).unwrap();
        timer.rung().await.unwrap();
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), timer.rung()).await.is_err());
    }
}
