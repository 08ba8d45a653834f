//! What a person asks for by a field: a switchover, when work may be done, what stays.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A switchover. It is done once for each `id`; what came of it is in `status.switchover`.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switchover {
    /// Any word: another one asks for another switchover.
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._:-]{1,63}$')")
        .message("switchover.id is a word of your own, another for each switchover: write e.g. id: \"2026-11-23\""))]
    #[schemars(length(max = 63))]
    pub id: String,
    /// The member that shall lead. The best one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub to: Option<String>,
}

/// When the operator may do by itself what interrupts clients (UTC).
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceWindow {
    /// On which days it begins. All when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Day>,
    /// When it begins, `HH:MM` in UTC.
    #[x_kube(validation = Rule::new("self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')")
        .message("maintenanceWindows.start must be a time of day in UTC: write e.g. start: \"02:00\""))]
    #[schemars(length(max = 5))]
    pub start: String,
    /// How long it is, in hours and minutes.
    #[serde(default = "an_hour")]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,2}h)?([0-9]{1,4}m)?$') && self.size() > 0 && duration(self) >= duration('10m') && duration(self) <= duration('24h')")
        .message("maintenanceWindows.duration must be 10m to 24h: write e.g. duration: 2h or duration: 1h30m"))]
    #[schemars(length(max = 8))]
    pub duration: String,
}

fn an_hour() -> String {
    "1h".to_owned()
}

/// Day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// What becomes of the volumes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumePolicy {
    /// When the cluster is deleted.
    #[serde(default)]
    pub when_deleted: Keep,
    /// Of a member that is removed by scaling down.
    #[serde(default)]
    pub when_scaled: Keep,
}

/// Whether something stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Keep {
    /// It stays until somebody deletes it.
    #[default]
    Retain,
    /// It is deleted **with the data**.
    Delete,
}

impl Keep {
    /// Kubernetes' own word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retain => "Retain",
            Self::Delete => "Delete",
        }
    }
}
