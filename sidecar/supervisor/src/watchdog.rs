//! The hardware watchdog: it resets the machine if this process can neither keep a writable PostgreSQL under a permit nor stop it.
//!
//! It lies here, not with the agent, because here is the fence: an agent that dies only stops renewing, and PostgreSQL is stopped at
//! the deadline, after which the device is let go. A supervisor that is frozen, or whose SIGKILL does not end a process that
//! hangs in the kernel, writes nothing, and the device does its work. A sign of life is written with each permit and never
//! in between, so that the machine is reset before ttl has passed since the last confirmed renewal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use matriarch_supervisor::protocol::Watchdog as Config;
use nix::libc::O_NONBLOCK;

use crate::sys;

/// Any byte is a sign of life.
const ALIVE: &[u8] = b"1";
/// Before it is closed: no reset is wanted.
const MAGIC_CLOSE: &[u8] = b"V";

/// The device, if there is one, and whether it is open.
#[derive(Debug, Default)]
pub struct Watchdog {
    config: Option<Config>,
    open: Option<File>,
}

impl Watchdog {
    /// What guards from the next latch on. One that is open already stays as it is.
    pub fn configure(&mut self, config: Option<Config>) {
        if config.is_none() {
            self.disarm();
        }
        self.config = config;
    }

    /// Opens it, as PostgreSQL is about to be writable. Fails only where it is required; otherwise the sentence is for the log.
    pub fn arm(&mut self) -> Result<Option<String>, String> {
        let Some(config) = self.config.as_ref().filter(|_| self.open.is_none()) else { return Ok(None) };
        match open(config) {
            Ok(mut file) => {
                let _ = file.write(ALIVE);
                self.open = Some(file);
                Ok(Some(format!("the watchdog {} is armed: {} s", config.device.display(), config.timeout_s)))
            }
            Err(error) => {
                let why = format!("the watchdog {} cannot be armed: {error}", config.device.display());
                if config.required { Err(why) } else { Ok(Some(why)) }
            }
        }
    }

    /// A permit was given: a sign of life.
    pub fn alive(&mut self) {
        if let Some(file) = &mut self.open {
            // What cannot be written is what the device is there for.
            let _ = file.write(ALIVE);
        }
    }

    /// PostgreSQL is not writable here any more, or a person is at the keyboard.
    pub fn disarm(&mut self) {
        if let Some(mut file) = self.open.take() {
            let _ = file.write(MAGIC_CLOSE);
        }
    }

    /// Whether it is open.
    pub fn armed(&self) -> bool {
        self.open.is_some()
    }
}

fn open(config: &Config) -> io::Result<File> {
    let file = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&config.device)?;
    // Anything else than a device has no timeout (tests use a pipe).
    if file.metadata()?.file_type().is_char_device() {
        let in_force = sys::set_watchdog_timeout(&file, config.timeout_s);
        let too_long = match in_force {
            Ok(seconds) => (seconds > config.timeout_s).then(|| format!("its timeout is {seconds} s")),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = too_long {
            let _ = (&file).write(MAGIC_CLOSE);
            return Err(io::Error::other(format!("it resets too late, {} s are needed: {why}", config.timeout_s)));
        }
    }
    Ok(file)
}
