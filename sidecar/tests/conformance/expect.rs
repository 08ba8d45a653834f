//! What a script expects, asked of a real server.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use matriarch_ha::event::{ControlData, DataDir, ServerStatus};
use matriarch_ha::types::Timeline;
use matriarch_sim::conformance::{Order, Rewound, Role, Server, Step};
use tokio::time::sleep;

use super::{Bench, SETTLED, SOON};

impl Bench<'_> {
    pub(super) async fn status(&self, on: Server) -> Option<ServerStatus> {
        self.members[&on].postgres.query(Duration::from_secs(5)).await.ok()
    }

    async fn data(&self, on: Server) -> Option<ControlData> {
        match self.members[&on].postgres.inspect().await {
            DataDir::Present(data) => Some(data),
            _ => None,
        }
    }

    /// Of a table in the catalog; none: it cannot be asked.
    async fn shows(&self, on: Server, name: &str) -> Option<bool> {
        let client =
            matriarch_sidecar::postgres::local::connect(&self.members[&on].config, "postgres", "").await.ok()?;
        let sql = "SELECT EXISTS (SELECT FROM pg_class WHERE relname = $1)";
        client.query_one(sql, &[&format!("of_{name}")]).await.ok()?.try_get(0).ok()
    }

    async fn role(&self, on: Server) -> Role {
        match self.status(on).await {
            None => Role::Down,
            Some(status) if status.in_recovery => Role::Standby,
            Some(_) => Role::Primary,
        }
    }

    /// Asks until the answer is the one that is wanted.
    async fn becomes<T: PartialEq + Debug>(&self, wanted: T, ask: impl AsyncFn(&Self) -> T) -> Result<(), String> {
        let end = Instant::now() + SOON;
        loop {
            let is = ask(self).await;
            if is == wanted || Instant::now() > end {
                return equal(is, wanted);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Do(order) => self.order(order).await,
            Step::Refused(order) => match self.order(order).await {
                Ok(()) => Err("it was obeyed".to_owned()),
                Err(_) => Ok(()),
            },
            Step::Is(on, role) => self.becomes(*role, async |b| b.role(*on).await).await,
            Step::Timeline(on, timeline) => {
                self.becomes(Some(Timeline(*timeline)), async |b| b.status(*on).await.map(|s| s.timeline)).await
            }
            Step::ControlTimeline(on, timeline) => {
                equal(self.data(*on).await.map(|data| data.timeline), Some(Timeline(*timeline)))
            }
            Step::Streams(on, wanted) => {
                if !wanted {
                    sleep(SETTLED).await;
                }
                self.becomes(Some(*wanted), async |b| b.status(*on).await.map(|s| s.streaming)).await
            }
            Step::Has(on, name) => self.becomes(Some(true), async |b| b.shows(*on, name).await).await,
            Step::Lacks(on, name) => equal(self.shows(*on, name).await, Some(false)),
            Step::Answered(name, answer) => self.answered(name, *answer).await,
            Step::Rewinds(on, from, wanted) => {
                let mark = self.members[on].dir.join("volume/pgdata.rewinding");
                let mut marked = false;
                let order = Order::Rewind(*on, *from);
                let result = {
                    let watch = async {
                        loop {
                            marked |= mark.exists();
                            sleep(Duration::from_millis(1)).await;
                        }
                    };
                    tokio::select! {
                        result = self.order(&order) => result,
                        () = watch => unreachable!(),
                    }
                };
                let said = match &result {
                    Err(_) => Rewound::Refused,
                    Ok(()) if marked => Rewound::Yes,
                    Ok(()) => Rewound::NotRequired,
                };
                if said == *wanted { Ok(()) } else { Err(format!("{said:?} ({result:?})")) }
            }
            Step::HasSlots(on, slots) => {
                let names = |s: ServerStatus| s.slots.into_iter().map(|slot| slot.name).collect();
                self.becomes(Some(slots.clone()), async |b| b.status(*on).await.map(names)).await
            }
            Step::Startable(on, wanted) => equal(self.data(*on).await.is_some(), *wanted),
            Step::BeyondCheckpoint(on, of) => {
                let (ours, theirs) = (self.data(*on).await.unwrap(), self.data(*of).await.unwrap());
                // A shutdown checkpoint is 114 bytes, aligned to 120; a little more where a page begins.
                let beyond = ours.min_recovery.0.saturating_sub(theirs.checkpoint.0);
                if (100..=160).contains(&beyond) { Ok(()) } else { Err(format!("{ours:?} {theirs:?}")) }
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "values are made for it")]
pub(super) fn equal<T: PartialEq + Debug>(is: T, wanted: T) -> Result<(), String> {
    if is == wanted { Ok(()) } else { Err(format!("it is {is:?}, not {wanted:?}")) }
}
