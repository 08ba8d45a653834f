//! The loop between the core and the world: one event in, its effects out, each as one call whose end is one event. No decisions
//! are made here.

pub mod clock;
pub mod handle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use matriarch_ha::effect::{Effect, Question, Reply};
use matriarch_ha::event::{Event, Now};
use matriarch_ha::types::Boot;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use crate::peers::Peers;
use crate::postgres::Postgres;
use crate::store::Store;
use crate::supervisor::Supervisor;
use handle::{Asked, HandleEnd};

/// The supervisor acknowledges the last message within this, or does not.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// A wake-up that lies in the past comes this much later, so that one who asks for it again and again starves nobody.
const BREATH_MS: u64 = 1;

/// What decides: the core in production, scripts in tests.
pub trait Machine {
    /// Takes one event; returns what is to be done, in order.
    fn handle(&mut self, now: Now, event: Event) -> Vec<Effect>;
}

impl Machine for matriarch_ha::core::Core {
    fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        Self::handle(self, now, event)
    }
}

/// Everything that effects work on.
pub struct World {
    /// The Kubernetes API.
    pub store: Store,
    /// PID 1 of the postgres container.
    pub supervisor: Supervisor,
    /// Our PostgreSQL.
    pub postgres: Arc<Postgres>,
    /// The other members.
    pub peers: Arc<Peers>,
    /// Where all of the above send their events.
    pub events: UnboundedSender<Event>,
}

/// How a loop ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is left to do in this pod.
    Finished,
    /// The agent cannot go on, and why.
    Failed(String),
}

/// The loop's own state.
struct Driver {
    world: World,
    timer: clock::Timer,
    end: HandleEnd,
    /// What the core was told of parameters that cannot be used.
    invalid_parameters: BTreeMap<String, String>,
    /// The dynamic configuration that was kept in the data directory was looked for.
    cache_read: bool,
    /// Requests that wait for the core.
    asked: BTreeMap<u64, oneshot::Sender<Reply>>,
    next_request: u64,
    /// Tasks that run: dropping the sender does nothing, sending cancels.
    tasks: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Runs until the core says that it is over. `received` is the other end of [`World::events`].
pub async fn run(
    mut machine: impl Machine,
    world: World,
    mut received: UnboundedReceiver<Event>,
    end: HandleEnd,
) -> std::io::Result<Ended> {
    let mut driver = Driver {
        world,
        timer: clock::Timer::new()?,
        end,
        invalid_parameters: BTreeMap::new(),
        cache_read: false,
        asked: BTreeMap::new(),
        next_request: 1,
        tasks: BTreeMap::new(),
    };
    let mut next = Event::Tick;
    loop {
        driver.before(&next);
        let upkeep = matches!(next, Event::Changed { .. } | Event::TaskDone { .. });
        for effect in machine.handle(clock::now(), next) {
            if let Some(ended) = driver.perform(effect).await? {
                return Ok(ended);
            }
        }
        if upkeep {
            driver.check_parameters();
        }
        next = tokio::select! {
            biased;
            event = received.recv() => match event {
                Some(event) => event,
                // Not while the world holds a sender.
                None => return Ok(Ended::Failed("nobody sends events any more".to_owned())),
            },
            rung = driver.timer.rung() => {
                rung?;
                Event::Tick
            }
            Some(asked) = driver.end.requests.recv() => driver.ask(asked),
        };
    }
}

impl Driver {
    /// What the edge itself has to know of an event before the core acts on it.
    fn before(&mut self, event: &Event) {
        match event {
            Event::Exited { .. } => self.world.postgres.forget_connection(),
            Event::Attached(attached) => {
                let cache = !std::mem::replace(&mut self.cache_read, true);
                let running = attached.postmaster.is_some();
                let (postgres, events) = (self.world.postgres.clone(), self.world.events.clone());
                tokio::spawn(async move {
                    if running {
                        postgres.look_at_running().await;
                    }
                    if cache && let Some(document) = postgres.kept_dynamic().await {
                        // Fails only when the loop has ended.
                        let _ = events.send(Event::Cached(Box::new(document)));
                    }
                });
            }
            Event::TaskDone { id, .. } => {
                self.tasks.remove(id);
            }
            _ => {}
        }
    }

    fn ask(&mut self, asked: Asked) -> Event {
        let id = self.next_request;
        self.next_request += 1;
        // Those whose client has gone away are not kept.
        self.asked.retain(|_, answer| !answer.is_closed());
        self.asked.insert(id, asked.answer);
        Event::Request { id, request: asked.request }
    }

    /// What PostgreSQL cannot use of the configuration is found out with every change of its files.
    fn check_parameters(&mut self) {
        let invalid = self.world.postgres.invalid_parameters();
        if self.invalid_parameters != invalid {
            self.invalid_parameters.clone_from(&invalid);
            // Fails only when the loop has ended.
            let _ = self.world.events.send(Event::Parameters { invalid });
        }
    }

    /// Starts one effect; nothing here waits, but for the very last message.
    async fn perform(&mut self, effect: Effect) -> std::io::Result<Option<Ended>> {
        match effect {
            Effect::Store(call) => self.world.store.call(call),
            Effect::Permit { seq, deadline } => self.world.supervisor.permit(seq, deadline),
            Effect::Inspect { id } => {
                let postgres = self.world.postgres.clone();
                self.answer(async move { Event::Inspected { id, found: postgres.inspect().await } });
            }
            Effect::Query { id, timeout_ms } => {
                let postgres = self.world.postgres.clone();
                let limit = Duration::from_millis(timeout_ms);
                self.answer(async move { Event::Queried { id, result: postgres.query(limit).await } });
            }
            Effect::Change { id, change } => {
                let postgres = self.world.postgres.clone();
                self.answer(async move { Event::Changed { id, result: postgres.change(change).await } });
            }
            Effect::Task { id, task } => {
                let postgres = self.world.postgres.clone();
                let (cancel, cancelled) = oneshot::channel();
                self.tasks.insert(id, cancel);
                self.answer(async move {
                    let cancelled = async {
                        if cancelled.await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    };
                    Event::TaskDone { id, result: postgres.task(task, cancelled).await }
                });
            }
            Effect::History { id, timeline } => {
                let postgres = self.world.postgres.clone();
                self.answer(async move {
                    let result = postgres.history(timeline).await.map_err(|error| error.to_string());
                    Event::History { id, result }
                });
            }
            Effect::Decided(snapshot) => {
                if tracing::enabled!(tracing::Level::DEBUG) {
                    let text = serde_json::to_string(&snapshot).unwrap_or_default();
                    tracing::debug!(snapshot = text, "decided on this: see `matriarch-sidecar explain`");
                }
            }
            Effect::CancelTask { id } => {
                if let Some(cancel) = self.tasks.remove(&id) {
                    // Fails when it has just ended by itself.
                    let _ = cancel.send(());
                }
            }
            Effect::Ask { id, peer, question, timeout_ms } => {
                let peers = self.world.peers.clone();
                let limit = Duration::from_millis(timeout_ms);
                self.answer(async move {
                    let member = peer.member.clone();
                    if let Question::Failsafe { .. } = question {
                        Event::FailsafeAnswer { id, member, result: peers.failsafe(&peer, &question, limit).await }
                    } else {
                        Event::Peer { id, member, result: peers.ask(&peer, &question, limit).await }
                    }
                });
            }
            Effect::Reply { id, reply } => {
                if let Some(answer) = self.asked.remove(&id) {
                    // Fails when the client has gone away.
                    let _ = answer.send(reply);
                }
            }
            Effect::WakeAt(at) => self.timer.set(at.max(clock::boot().plus_ms(BREATH_MS)))?,
            Effect::Settings { effective, problems, dynamic } => {
                self.world.postgres.configured(&effective, &problems);
                if let Some(dynamic) = dynamic {
                    let postgres = self.world.postgres.clone();
                    tokio::spawn(async move { postgres.keep_dynamic(&dynamic).await });
                }
            }
            Effect::Callback { action, role } => self.world.postgres.callback(action, &role),
            Effect::Publish(view) => {
                self.end.view.send_replace(view);
            }
            Effect::Verdict { rule, reason } => tracing::info!(rule.id = rule, "{reason}"),
            Effect::Disbelieved(why) => tracing::warn!("{why}"),
            Effect::Finish => {
                match tokio::time::timeout(FINISH_TIMEOUT, self.world.supervisor.finish()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!("the supervisor was not told to end: {error}"),
                    Err(_) => tracing::warn!("the supervisor did not answer the last message"),
                }
                return Ok(Some(Ended::Finished));
            }
            Effect::Exit(reason) => return Ok(Some(Ended::Failed(reason))),
        }
        Ok(None)
    }

    /// Runs a call in a task of its own; its end is an event.
    fn answer(&self, call: impl Future<Output = Event> + Send + 'static) {
        let events = self.world.events.clone();
        tokio::spawn(async move {
            // Fails only when the loop has ended.
            let _ = events.send(call.await);
        });
    }
}

/// The moment `ms` from now, for tests and tools.
pub fn in_ms(ms: u64) -> Boot {
    clock::boot().plus_ms(ms)
}
