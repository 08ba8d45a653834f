//! Edits of the dynamic configuration over REST (`PATCH` and `PUT /config`): merged with what is stored, written by
//! compare-and-swap, answered when the write is confirmed.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{CALL_TIMEOUT_MS, Call, Core};
use crate::config_edit::patch;
use crate::effect::{Effect, Reply, StoreCall};
use crate::event::{Kind, StoreError};
use crate::types::Boot;

/// The object holds more than the configuration (`initialize`, `history`): a write of those that came in between is no reason to
/// refuse, so the edit is made again on what is stored then.
const TRIES: u32 = 3;

/// An edit that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    request: u64,
    body: Map<String, Value>,
    /// Not merged: `PUT`.
    whole: bool,
    tries: u32,
}

impl Core {
    pub(super) fn edit_asked(
        &mut self,
        now: Boot,
        request: u64,
        body: Map<String, Value>,
        whole: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.edit(now, Edit { request, body, whole, tries: 0 }, effects);
    }

    /// On what is stored now.
    pub(super) fn edit(&mut self, now: Boot, mut edit: Edit, effects: &mut Vec<Effect>) {
        let name = self.id.config_object.clone();
        let stored = self.locks.get(&name).and_then(|object| object.annotations.get("config"));
        let stored = stored.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        let mut document = stored.clone().unwrap_or_default();
        if edit.whole {
            document.clone_from(&edit.body);
        } else if stored.is_none() {
            let text = "no valid configuration is stored: write a whole one with PUT /config";
            effects.push(say(&edit, 503, text.to_owned()));
            return;
        } else {
            patch(&mut document, &edit.body);
        }
        if stored.as_ref() == Some(&document) {
            effects.push(Effect::Reply { id: edit.request, reply: Reply::Document(Value::Object(document)) });
            return;
        }
        edit.tries += 1;
        let annotations = BTreeMap::from([("config".to_owned(), Some(Value::Object(document).to_string()))]);
        self.store_call(now, Call::Edit(Box::new(edit)), name, annotations, effects);
    }

    /// The write has ended; `error` says how badly.
    pub(super) fn edit_written(
        &mut self,
        now: Boot,
        edit: Edit,
        error: Option<&StoreError>,
        effects: &mut Vec<Effect>,
    ) {
        let failed = if edit.whole { 502 } else { 503 };
        effects.push(match error {
            None => {
                let document = self.config_document.as_deref().cloned().unwrap_or_default();
                Effect::Reply { id: edit.request, reply: Reply::Document(document) }
            }
            Some(StoreError::Conflict | StoreError::NotFound) if edit.tries < TRIES => {
                let id = self.id();
                self.calls.insert(id, (now.plus_ms(CALL_TIMEOUT_MS), Call::EditRead(Box::new(edit))));
                let name = self.id.config_object.clone();
                Effect::Store(StoreCall::Get { id, kind: Kind::Lock, name })
            }
            Some(StoreError::Conflict) if !edit.whole => {
                say(&edit, 409, "somebody else changes the configuration at the same time: try again".to_owned())
            }
            Some(StoreError::Conflict) => say(&edit, failed, "somebody else changes the configuration".to_owned()),
            Some(StoreError::NotFound) => say(&edit, failed, "the configuration object is gone".to_owned()),
            Some(StoreError::Gone) => say(&edit, failed, "the API server does not know the version".to_owned()),
            Some(StoreError::Forbidden(why) | StoreError::Status(_, why, _)) => {
                say(&edit, failed, format!("the configuration was not written: {why}"))
            }
            Some(StoreError::Unreachable(why)) => {
                say(&edit, failed, format!("whether the configuration was written is not known: {why}"))
            }
        });
    }
}

fn say(edit: &Edit, code: u16, text: String) -> Effect {
    Effect::Reply { id: edit.request, reply: Reply::Text { code, text } }
}
