//! Timing and limits of the high-availability loop.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Default of [`HighAvailability::ttl`].
pub const DEFAULT_TTL: i32 = 10;
/// Default of [`HighAvailability::loop_wait`].
pub const DEFAULT_LOOP_WAIT: i32 = 2;
/// Default of [`HighAvailability::retry_timeout`].
pub const DEFAULT_RETRY_TIMEOUT: i32 = 3;
/// Default of [`HighAvailability::maximum_lag_on_failover`], in bytes.
pub const DEFAULT_MAXIMUM_LAG: i64 = 1_048_576;

/// Timing and limits of the high-availability loop.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.loopWait) ? self.loopWait : 2) + 2 * (has(self.retryTimeout) ? self.retryTimeout : 3) <= (has(self.ttl) ? self.ttl : 10)")
        .message("ha.ttl must be at least loopWait + 2 * retryTimeout, so that a primary can retry before its lock expires: write e.g. ha: {ttl: 10, loopWait: 2, retryTimeout: 3}")
)]
pub struct HighAvailability {
    /// Seconds after which a lock that is not renewed is free. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 5 && self <= 300").message("ha.ttl must be 5 to 300 seconds: write e.g. ttl: 10 (the default)"))]
    pub ttl: Option<i32>,
    /// The longest time, in seconds, between two rounds of the loop. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100").message("ha.loopWait must be 1 to 100 seconds: write e.g. loopWait: 2 (the default)"))]
    pub loop_wait: Option<i32>,
    /// For how many seconds a call to the API server or to PostgreSQL is tried again. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100").message("ha.retryTimeout must be 1 to 100 seconds: write e.g. retryTimeout: 3 (the default)"))]
    pub retry_timeout: Option<i32>,
    /// Whether the primary goes on without the API server as long as all members answer it. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failsafe_mode: Option<bool>,
    /// How many bytes a standby may be behind and still be elected. Default 1048576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0").message("ha.maximumLagOnFailover is a number of bytes, 0 or more: write e.g. maximumLagOnFailover: 1048576 (the default)"))]
    pub maximum_lag_on_failover: Option<i64>,
}
