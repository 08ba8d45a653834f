//! `patroni.dynamic.json` in the data directory: the dynamic configuration that was last in force here, for the day on which the
//! store has lost it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use matriarch_supervisor::protocol::{Answer, Request};
use serde_json::Value;

use super::Postgres;

/// Patroni's name of the file.
const NAME: &str = "patroni.dynamic.json";

/// What is to be in the file, as text; none: nothing is known yet.
#[derive(Default)]
pub struct Dynamic(Mutex<Option<String>>);

impl Postgres {
    fn dynamic_file(&self) -> PathBuf {
        self.place.data_dir.join(NAME)
    }

    /// What was in force when an agent last ran here. What cannot be read is none.
    pub async fn kept_dynamic(&self) -> Option<Value> {
        let text = self.supervisor.read(self.dynamic_file()).await.ok().flatten()?;
        if let Ok(document @ Value::Object(_)) = serde_json::from_str(&text) {
            return Some(document);
        }
        tracing::warn!("{} is no JSON object: it is not used", self.dynamic_file().display());
        None
    }

    /// The dynamic configuration is this now. It is written at once where a server runs, else with its files: a write would make
    /// the directory anew that a copy is about to replace.
    pub async fn keep_dynamic(&self, document: &Value) {
        *self.dynamic.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(document.to_string());
        let status = self.supervisor.call(Request::Status).await;
        if matches!(status, Ok(Answer::Status(status)) if status.postmaster.is_some()) {
            self.write_dynamic().await;
        }
    }

    /// A configuration that cannot be kept harms nobody now.
    pub(super) async fn write_dynamic(&self) {
        let Some(text) = self.dynamic.0.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
        if let Err(error) = self.put(self.dynamic_file(), text, 0o600).await {
            tracing::debug!("{} is not written: {error}", self.dynamic_file().display());
        }
    }
}
