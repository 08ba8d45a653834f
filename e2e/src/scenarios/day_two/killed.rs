//! The operator dies at random moments of everything that it does; whatever it began is completed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::json;

use super::super::case::Case;
use super::super::herd::Member;
use super::outside::{Killed, Outside};
use super::wishes;

const LONG_ENOUGH: Duration = Duration::from_mins(2);

/// A switchover by field, scale up and down, a rolling update, new agents.
pub async fn operator(case: &Case) -> Result<()> {
    let mut dying = Dying::begin(case, "operator-killed").await?;
    wishes::by_field(case, ["third", "fourth"]).await.context("a switchover by field")?;
    dying.done("switched over");

    case.cluster().ensure_volumes(2).await?;
    case.herd.patch(&json!({"instances": 4})).await?;
    case.herd.steady(LONG_ENOUGH).await.context("scaling up")?;
    dying.done("scaled to 4");

    // The leader is the one that would go.
    let top = case.herd.members().await?.pop().context("no member")?;
    case.world.plugin(&["switchover", case.herd.name(), "--candidate", &top.name, "--yes"]).await?;
    case.herd.patch(&json!({"instances": 3})).await?;
    case.herd.steady(LONG_ENOUGH).await.context("scaling down")?;
    ensure!(case.herd.primary().await?.name != top.name, "{} leads and should be gone", top.name);
    dying.done("scaled to 3 with the leader at the top");

    let before = case.herd.members().await?;
    case.herd.patch(&json!({"resources": {"requests": {"cpu": "110m"}}})).await?;
    rolled(case, &before).await.context("other resources")?;
    dying.done("other resources");

    let image = &case.world.images.sidecar.reference;
    let other = format!("{image}-killed");
    case.cluster().tag_image(image, &other)?;
    let mut dying = dying.with_sidecar(&other).await?;
    agents(case, &other).await?;
    dying.done("new agents");
    case.world.set_sidecar_image_only(&other).await?;
    dying.end().await
}

/// A drained node: of its own, for it needs a primary that is alone on its node.
pub async fn drained(case: &Case) -> Result<()> {
    let mut dying = Dying::begin(case, "operator-killed-drained").await?;
    wishes::drained(case).await?;
    dying.done("drained");
    dying.end().await
}

/// Sleep and waking: of their own, for nobody can write meanwhile.
pub async fn asleep(case: &Case) -> Result<()> {
    let mut dying = Dying::begin(case, "operator-killed-asleep").await?;
    wishes::hibernate(case).await?;
    dying.done("slept and woke");
    dying.end().await
}

/// An operator that dies again and again, and what took how long and how many lives.
struct Dying<'a> {
    case: &'a Case,
    outside: Outside,
    killed: Killed,
    seed: u64,
    begin: Instant,
    /// Kills that were told of, and those of the operators before.
    before: (u32, u32),
}

impl<'a> Dying<'a> {
    async fn begin(case: &'a Case, scenario: &str) -> Result<Self> {
        let chosen = std::env::var("MATRIARCH_SEED").ok().and_then(|text| text.parse().ok());
        let seed: u64 = chosen.unwrap_or_else(|| Timestamp::now().as_millisecond().unsigned_abs() % 1_000_000);
        eprintln!("    seed {seed} (MATRIARCH_SEED={seed} repeats the moments)");
        case.note(format!("seed {seed}"));
        let outside = Outside::take_over(&case.world, scenario).await?;
        let killed = outside.killed_at_random(seed);
        Ok(Self { case, outside, killed, seed, begin: Instant::now(), before: (0, 0) })
    }

    fn done(&mut self, what: &str) {
        let all = self.before.1 + self.killed.kills();
        let (kills, took) = (all - self.before.0, self.begin.elapsed().as_secs_f32());
        eprintln!("    {what}: {took:.0} s, the operator was killed {kills} times");
        self.case.note(format!("{what}: {took:.0} s, {kills} kills"));
        (self.begin, self.before.0) = (Instant::now(), all);
    }

    /// Goes on with operators that bring another sidecar image.
    async fn with_sidecar(self, image: &str) -> Result<Self> {
        let Self { case, outside, killed, seed, begin, before } = self;
        let before = (before.0, before.1 + killed.kills());
        drop(killed.spare().await?);
        let (outside, seed) = (outside.with_sidecar(image), seed.wrapping_add(1));
        let killed = outside.killed_at_random(seed);
        Ok(Self { case, outside, killed, seed, begin, before })
    }

    /// The last one lives, and hands over to the one in the pod.
    async fn end(self) -> Result<()> {
        self.case.note(format!("{} kills in all", self.before.1 + self.killed.kills()));
        let last = self.killed.spare().await?;
        self.case.herd.steady(LONG_ENOUGH).await?;
        drop(last);
        self.case.world.operator_in_its_pod().await
    }
}

/// Waits until every pod is another one and all is steady.
pub async fn rolled(case: &Case, before: &[Member]) -> Result<()> {
    case.cluster()
        .wait("every pod is a new one", LONG_ENOUGH, async || {
            let now = case.herd.members().await?;
            let old: Vec<&str> = now
                .iter()
                .filter(|one| before.iter().any(|old| old.uid == one.uid))
                .map(|one| one.name.as_str())
                .collect();
            Ok((!old.is_empty()).then(|| format!("{old:?} are as before")))
        })
        .await?;
    case.herd.steady(LONG_ENOUGH).await
}

/// Waits until PostgreSQL of every member runs with a setting, as its own answer says.
pub async fn setting(case: &Case, name: &str, value: &str) -> Result<()> {
    let what = format!("{name} is {value} everywhere");
    let database = case.herd.database().await?;
    case.cluster()
        .wait(&what, LONG_ENOUGH, async || {
            for member in case.herd.members().await? {
                let sql = format!("SHOW {name}");
                let rows = case.workload.ask(&database.at(&member.address), &sql).await?;
                let now = rows.first().and_then(|row| row.first()).cloned().unwrap_or_default();
                if now != value {
                    return Ok(Some(format!("{now} on {}", member.name)));
                }
            }
            Ok(None)
        })
        .await
}

async fn agents(case: &Case, image: &str) -> Result<()> {
    case.cluster()
        .wait("every pod has the new agent", LONG_ENOUGH, async || {
            for member in case.herd.members().await? {
                let pod = case.cluster().pod(case.namespace(), &member.name).await?;
                let inits = pod.spec.into_iter().flat_map(|spec| spec.init_containers.unwrap_or_default());
                let has = inits.filter(|one| one.name == "agent").any(|one| one.image.as_deref() == Some(image));
                if !has || !member.ready {
                    return Ok(Some(format!("not {}", member.name)));
                }
            }
            Ok(None)
        })
        .await
}
