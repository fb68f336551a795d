//! Data that shows what every page is for: a shop's team, with a month behind it.
//!
//! What the API takes goes through the API, on the server's own routes and at the time at which it would have
//! been done: the clock is one that this moves. What only time brings about (runs, requests to models, weavers)
//! is written as rows.

mod api;
mod audit;
mod chance;
mod crashes;
mod crons;
mod issues;
mod llm;
mod people;
mod releases;
mod rows;
mod stacks;
mod talks;
mod threads;
mod weavers;

use std::time::Duration;

use axum::Router;
use chrono::{DateTime, TimeDelta, Utc};
use loom_core::Clock;
use sqlx::PgPool;
use uuid::Uuid;

use api::Api;
use chance::Chance;
use crashes::Act;
use people::Team;

/// Days that are filled.
pub const DAYS: i64 = 30;
/// Envelopes at once.
const SIDE_BY_SIDE: usize = 8;
const SEED: u64 = 0x10_0E;

/// What the data is put into.
pub struct World {
    pub pool: PgPool,
    /// The server's routes, all of them.
    pub router: Router,
    /// A manual one, which stands [`start`] days back.
    pub clock: Clock,
    /// The moment that the data leads up to.
    pub now: DateTime<Utc>,
}

/// What is wanted.
pub struct Wish {
    /// Of the one who is to see it all: there already.
    pub email: String,
    /// Of the organisation: made when it is not there.
    pub slug: String,
    /// Also when the organisation has data of its own.
    pub force: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Made {
    pub org: Uuid,
    pub org_name: &'static str,
    /// False: it was there before.
    pub is_new: bool,
}

/// Gives an API key of the user with an address.
pub trait Keys {
    fn key(&self, email: &str) -> impl Future<Output = anyhow::Result<String>>;
    /// Runs a background job once.
    fn job(&self, id: &str) -> impl Future<Output = anyhow::Result<()>>;
}

/// When the clock has to begin.
pub fn start(now: DateTime<Utc>) -> DateTime<Utc> {
    now - TimeDelta::days(DAYS) - TimeDelta::hours(1)
}

/// Is there a user with this address?
///
/// # Errors
/// When the database cannot be asked.
pub async fn knows(pool: &PgPool, email: &str) -> anyhow::Result<bool> {
    Ok(people::find(pool, email).await?.is_some())
}

/// All that the parts share.
struct Demo {
    pool: PgPool,
    api: Api,
    clock: Clock,
    now: DateTime<Utc>,
    chance: Chance,
    team: Team,
}

/// Fills the organisation, unless that was done before.
///
/// # Errors
/// When something is in the way; the message is for the operator.
pub async fn fill(world: World, wish: &Wish, keys: &impl Keys) -> anyhow::Result<Made> {
    let World { pool, router, clock, now } = world;
    let api = Api::new(router);
    let Some(team) = people::gather(&pool, &clock, wish, keys).await? else {
        let org = people::organisation(&pool, &wish.slug).await?;
        let org = org.ok_or_else(|| anyhow::anyhow!("the organisation went away meanwhile"))?;
        return Ok(Made { org, org_name: people::NAME, is_new: false });
    };
    let mut demo = Demo { pool, api, clock, now, chance: Chance::new(SEED), team };
    let org = demo.team.org;
    let mut projects = crashes::projects(&demo).await?;
    let mut acts = Vec::new();
    releases::plan(&mut demo, &mut projects, &mut acts)?;
    crashes::plan(&mut demo, &projects, &mut acts)?;
    let threads = threads::plan(&mut demo, &projects, &mut acts)?;
    acts.sort_by_key(|(at, _)| *at);
    play(&demo, acts).await?;
    demo.go_to(now);
    crashes::settle(&demo).await?;
    crashes::end(&demo, &projects).await?;
    let weavers = weavers::write(&mut demo).await?;
    llm::write(&mut demo, &threads, &weavers).await?;
    crons::write(&mut demo, &projects).await?;
    audit::write(&mut demo).await?;
    for job in ["usage-rollup", "session-aggregation"] {
        keys.job(job).await?;
    }
    people::leave(&demo).await?;
    Ok(Made { org, org_name: people::NAME, is_new: true })
}

/// Does all of it, each at its time. What SDKs send close together goes side by side.
async fn play(demo: &Demo, acts: crashes::Acts) -> anyhow::Result<()> {
    let mut acts = acts.into_iter().peekable();
    while let Some((at, act)) = acts.next() {
        let mut together = vec![act];
        let mut last = at;
        while together.len() < SIDE_BY_SIDE
            && together.last().is_some_and(Act::is_sent)
            && let Some((next, act)) =
                acts.next_if(|(next, act)| act.is_sent() && *next - at < TimeDelta::hours(1))
        {
            last = next;
            together.push(act);
        }
        demo.go_to(last);
        let doing = together.into_iter().map(|act| Box::pin(act.run(demo)));
        futures::future::try_join_all(doing).await?;
    }
    Ok(())
}

impl Demo {
    /// Moves the clock there; never back.
    fn go_to(&self, at: DateTime<Utc>) {
        let by = (at - self.clock.now()).num_microseconds().unwrap_or_default();
        self.clock.advance(Duration::from_micros(u64::try_from(by).unwrap_or_default()));
    }

    /// So many days before now.
    fn days_ago(&self, days: f64) -> DateTime<Utc> {
        self.now - seconds(days * 86_400.0)
    }
}

/// For times that are reckoned with.
#[expect(clippy::cast_possible_truncation, reason = "some months in milliseconds")]
fn seconds(seconds: f64) -> TimeDelta {
    TimeDelta::milliseconds((seconds * 1000.0) as i64)
}

/// As the API and PostgreSQL read it.
fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}
