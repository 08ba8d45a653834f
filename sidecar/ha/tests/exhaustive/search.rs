//! Breadth-first search through all reachable states of a model; a violation comes with the shortest way that leads to it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use crate::gen_all::Gen;

/// A model whose steps are choices.
pub trait Model {
    type State: Copy + Eq + Hash + Debug;

    fn start(&self) -> Vec<Self::State>;
    /// One step: its name; none when this choice is not possible here. An error is a broken promise.
    fn step(&self, state: &mut Self::State, choose: &mut Gen) -> Result<Option<&'static str>, String>;
    /// One of the states that differ only in names.
    fn canonical(&self, _: &mut Self::State) {}
    /// What has to hold in every state.
    fn check(&self, state: &Self::State) -> Result<(), String>;
}

/// What a search found.
#[derive(Debug)]
pub struct Found {
    pub states: usize,
    pub steps: usize,
    /// The broken promise, and the way there.
    pub violation: Option<String>,
}

impl Found {
    #[track_caller]
    pub fn nothing(self, what: &str) {
        eprintln!("{what}: {} states, {} steps", self.states, self.steps);
        if let Some(violation) = self.violation {
            panic!("{what}: {violation}");
        }
    }

    #[track_caller]
    pub fn caught(self, what: &str) {
        let violation = self.violation.unwrap_or_else(|| panic!("{what}: not caught in {} states", self.states));
        eprintln!("{what}: caught after {} states\n{violation}", self.states);
    }
}

/// More states than this are a mistake in the bounds (each takes some 200 bytes).
const LIMIT: usize = 20_000_000;

/// All states.
pub fn explore<M: Model>(model: &M) -> Found {
    let mut index: HashMap<M::State, u32> = HashMap::new();
    let mut order: Vec<(M::State, u32, &'static str)> = Vec::new();
    for state in model.start() {
        index.insert(state, 0);
        order.push((state, u32::MAX, "start"));
    }
    let (mut at, mut steps, mut violation) = (0, 0, None);
    while at < order.len() && violation.is_none() {
        let from = order[at].0;
        if let Err(why) = model.check(&from) {
            violation = Some(trace(&order, at, &why));
            break;
        }
        let parent = u32::try_from(at).unwrap();
        Gen::all(|choose| {
            let mut to = from;
            match model.step(&mut to, choose) {
                Ok(Some(name)) => {
                    steps += 1;
                    model.canonical(&mut to);
                    index.entry(to).or_insert_with(|| {
                        order.push((to, parent, name));
                        parent
                    });
                }
                Ok(None) => {}
                Err(why) if violation.is_none() => {
                    order.push((to, parent, "the last step"));
                    violation = Some(trace(&order, order.len() - 1, &why));
                }
                Err(_) => {}
            }
        });
        at += 1;
        assert!(order.len() < LIMIT, "the bounds are too wide: {} states and more", order.len());
    }
    Found { states: order.len(), steps, violation }
}

fn trace<S: Debug>(order: &[(S, u32, &'static str)], at: usize, why: &str) -> String {
    let mut lines = Vec::new();
    let mut at = Some(at);
    while let Some((state, parent, name)) = at.and_then(|i| order.get(i)) {
        lines.push(format!("  {name}: {state:?}"));
        at = (*parent != u32::MAX).then_some(*parent as usize);
    }
    lines.push(why.to_owned());
    lines.reverse();
    lines.join("\n")
}
