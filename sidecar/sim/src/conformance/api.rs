//! Conformance scripts of the API server: what a client sees of its writes, its reads and its watches.

mod scripts;

use std::collections::BTreeMap;

use matriarch_ha::event::{Object, StoreError};
use serde::{Deserialize, Serialize};

pub use scripts::scripts;

/// The annotation that scripts write.
pub const ANNOTATION: &str = "leader";

/// A call for an object of the kind of locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// With this value.
    Create(String, String),
    /// By name.
    Get(String),
    /// A value, or none; on the version that was remembered, or on any.
    Patch {
        /// Of the object.
        name: String,
        /// Remembered under this word.
        on: Option<String>,
        /// None: removed.
        value: Option<String>,
    },
    /// By name.
    Delete(String),
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Ok,
    /// 409
    Conflict,
    /// 404
    NotFound,
    /// Another.
    Other,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A call and its answer; the object is remembered under the word, if it is not empty.
    Calls(Call, Answer, String),
    /// The version of a list is remembered under the word; it holds these, by name.
    Lists(String, Vec<String>),
    /// The value of what was remembered.
    Value(String, Option<String>),
    /// Two that were remembered have the same version.
    SameVersion(String, String),
    /// The second has a higher version.
    Newer(String, String),
    /// Whether two have the same uid.
    SameUid(String, String, bool),
    /// A watch from a remembered version tells just this, in order, with versions that grow: name, and value or none for the end.
    Watches(String, Vec<(String, Option<String>)>),
}

/// A story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// As a sentence.
    pub name: String,
    /// Line by line.
    pub steps: Vec<Step>,
}

/// An event of a watch: whether the object is gone, and the object.
pub type Told = (bool, Object);

/// An API server, with nothing in it.
pub trait Backend {
    /// Makes a call.
    fn call(&mut self, call: &Call, version: Option<&str>) -> impl Future<Output = Result<Object, StoreError>>;
    /// All objects, and the version of the list.
    fn list(&mut self) -> impl Future<Output = Result<(Vec<Object>, String), StoreError>>;
    /// What a watch from this version tells: so many events, and what comes soon after.
    fn watch(&mut self, from: &str, count: usize) -> impl Future<Output = Result<Vec<Told>, StoreError>>;
}

/// Plays a script; why it fails.
pub async fn play(script: &Script, backend: &mut impl Backend) -> Result<(), String> {
    let mut known = BTreeMap::new();
    for (index, step) in script.steps.iter().enumerate() {
        play_step(step, backend, &mut known).await.map_err(|why| format!("step {index}, {step:?}: {why}"))?;
    }
    Ok(())
}

async fn play_step(
    step: &Step,
    backend: &mut impl Backend,
    known: &mut BTreeMap<String, Object>,
) -> Result<(), String> {
    let of = |known: &BTreeMap<String, Object>, word: &str| known.get(word).cloned().ok_or(format!("no {word}"));
    let (holds, is) = match step {
        Step::Calls(call, wanted, word) => {
            let on = match call {
                Call::Patch { on: Some(word), .. } => Some(of(known, word)?.resource_version),
                _ => None,
            };
            let result = backend.call(call, on.as_deref()).await;
            let answer = match &result {
                Ok(_) => Answer::Ok,
                Err(StoreError::Conflict) => Answer::Conflict,
                Err(StoreError::NotFound) => Answer::NotFound,
                Err(_) => Answer::Other,
            };
            let is = format!("{result:?}");
            if let Ok(object) = result {
                known.insert(word.clone(), object);
            }
            (answer == *wanted, is)
        }
        Step::Lists(word, wanted) => {
            let (objects, resource_version) = backend.list().await.map_err(|error| format!("{error:?}"))?;
            known.insert(word.clone(), Object { resource_version, ..Object::default() });
            let mut names: Vec<String> = objects.into_iter().map(|object| object.name).collect();
            names.sort_unstable();
            (names == *wanted, format!("{names:?}"))
        }
        Step::Value(word, wanted) => {
            let object = of(known, word)?;
            (object.annotations.get(ANNOTATION) == wanted.as_ref(), format!("{object:?}"))
        }
        Step::SameVersion(a, b) => {
            let (a, b) = (of(known, a)?.resource_version, of(known, b)?.resource_version);
            (a == b, format!("{a}, {b}"))
        }
        Step::Newer(a, b) => {
            let (a, b) = (number(&of(known, a)?), number(&of(known, b)?));
            (a.is_some() && a < b, format!("{a:?}, {b:?}"))
        }
        Step::SameUid(a, b, wanted) => {
            let (a, b) = (of(known, a)?.uid, of(known, b)?.uid);
            ((a == b) == *wanted && !a.is_empty(), format!("{a}, {b}"))
        }
        Step::Watches(from, wanted) => {
            let from = of(known, from)?;
            let told = backend.watch(&from.resource_version, wanted.len()).await.map_err(|e| format!("{e:?}"))?;
            let versions: Vec<_> =
                std::iter::once(number(&from)).chain(told.iter().map(|(_, object)| number(object))).collect();
            let value = |object: &Object| object.annotations.get(ANNOTATION).cloned();
            let said: Vec<(String, Option<String>)> =
                told.iter().map(|(gone, o)| (o.name.clone(), value(o).filter(|_| !gone))).collect();
            (said == *wanted && versions.is_sorted_by(|a, b| a < b), format!("{said:?} {versions:?}"))
        }
    };
    if holds { Ok(()) } else { Err(is) }
}

fn number(object: &Object) -> Option<u64> {
    object.resource_version.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use matriarch_ha::effect::Patch;
    use matriarch_ha::event::Kind;

    use super::*;
    use crate::model::api::Api;

    impl Backend for Api {
        async fn call(&mut self, call: &Call, version: Option<&str>) -> Result<Object, StoreError> {
            let annotations = |value: &String| BTreeMap::from([(ANNOTATION.to_owned(), value.clone())]);
            let result = match call {
                Call::Create(name, value) => {
                    let object = Object { name: name.clone(), annotations: annotations(value), ..Object::default() };
                    self.create(Kind::Lock, object)
                }
                Call::Get(name) => self.get(Kind::Lock, name),
                Call::Patch { name, value, .. } => self.patch(&Patch {
                    id: 1,
                    kind: Kind::Lock,
                    name: name.clone(),
                    resource_version: version.map(ToOwned::to_owned),
                    annotations: BTreeMap::from([(ANNOTATION.to_owned(), value.clone())]),
                    labels: BTreeMap::new(),
                    addresses: None,
                    timeout_ms: 1,
                }),
                Call::Delete(name) => return self.delete(Kind::Lock, name).map(|()| Object::default()),
            };
            result.map(|object| (*object).clone())
        }

        async fn list(&mut self) -> Result<(Vec<Object>, String), StoreError> {
            Ok(Api::list(self, Kind::Lock))
        }

        async fn watch(&mut self, from: &str, _: usize) -> Result<Vec<Told>, StoreError> {
            let from: u64 = from.parse().unwrap();
            Ok(self
                .log
                .iter()
                .filter(|change| change.revision > from)
                .map(|change| (change.deleted, (*change.object).clone()))
                .collect())
        }
    }

    #[test]
    fn conformance_scripts_hold_on_the_models_api_server() {
        for script in scripts() {
            let mut api = Api::new();
            let mut play = std::pin::pin!(play(&script, &mut api));
            let Poll::Ready(result) = play.as_mut().poll(&mut Context::from_waker(Waker::noop())) else { panic!() };
            assert_eq!(result, Ok(()), "{}", script.name);
        }
    }
}
