//! How much a client may take of our time and memory.

use std::time::Duration;

/// Times after which a client is given up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request, the wait for the next one on a kept connection included.
    pub head: Duration,
    /// From the end of the head to the end of the body.
    pub body: Duration,
    /// After that a connection ends with its current request: nobody who does not read keeps one for ever.
    pub life: Duration,
    /// For the current request then, as long as it is not the core that takes its time: a restart may.
    pub last_request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(3),
            head: Duration::from_secs(15),
            body: Duration::from_secs(10),
            life: Duration::from_mins(2),
            last_request: Duration::from_mins(1),
        }
    }
}
