//! Which watchdog guards a writable PostgreSQL: told to the supervisor, which holds it, whenever that may have changed.

use matriarch_supervisor::protocol::{Request, Watchdog};

use super::{Error, Postgres};
use crate::config::watchdog::Mode;

impl Postgres {
    /// The device and its timeout; none: off, or a person is at the keyboard.
    fn watchdog(&self) -> Result<Option<Watchdog>, String> {
        let (config, settings) = (self.config(), self.settings());
        let config = &config.watchdog;
        if config.mode == Mode::Off || settings.pause {
            return Ok(None);
        }
        let timeout_s = config.timeout_s(settings.ttl_s);
        if u64::from(timeout_s) * 1000 <= settings.loop_wait_ms {
            return Err(format!(
                "watchdog: a timeout of {timeout_s} s (ttl {} s less watchdog.safety_margin) is no longer than loop_wait: no renewal \
                 would come in time",
                settings.ttl_s
            ));
        }
        Ok(Some(Watchdog { device: config.device.clone(), timeout_s, required: config.mode == Mode::Required }))
    }

    /// Before PostgreSQL becomes writable the supervisor knows what guards it.
    pub(super) async fn guard(&self) -> Result<(), Error> {
        let required = self.config().watchdog.mode == Mode::Required;
        let watchdog = match self.watchdog() {
            Ok(watchdog) => watchdog,
            Err(why) if required => return Err(Error::Forbidden(why)),
            Err(why) => {
                tracing::warn!("{why}");
                None
            }
        };
        if self.config().watchdog.mode == Mode::Off {
            return Ok(()); // the supervisor knows of none
        }
        match self.supervisor.done(Request::Guard { watchdog }).await {
            Err(error) if required => Err(Error::Forbidden(format!("the watchdog cannot be armed: {error}"))),
            Err(error) => {
                tracing::warn!("the watchdog cannot be armed: {error}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The configuration has changed: a pause lets the device go, its end takes it again with the next permit.
    pub(super) fn guard_soon(&self) {
        if self.config().watchdog.mode == Mode::Off {
            return;
        }
        let watchdog = self.watchdog().unwrap_or_default();
        let supervisor = self.supervisor.clone();
        tokio::spawn(async move {
            // Without a connection nothing is armed either, and the next start or promotion tells it again.
            let _ = supervisor.done(Request::Guard { watchdog }).await;
        });
    }
}
