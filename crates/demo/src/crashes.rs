//! Projects, their events over the month, and what the team did about them.

use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Demo,
    api::Who,
    issues::{self, Occurrence},
    releases, seconds,
    stacks::{self, Family},
};

/// A project as it was made.
pub(crate) struct Project {
    pub(crate) family: Family,
    pub(crate) id: Uuid,
    pub(crate) number: i64,
    /// The public part of its DSN.
    pub(crate) key: String,
    pub(crate) releases: Vec<releases::Release>,
}

/// Something that is done at a certain time.
pub(crate) enum Act {
    Envelope {
        project: i64,
        key: String,
        items: String,
    },
    Post {
        who: Who,
        path: String,
        body: Value,
    },
    Put {
        who: Who,
        path: String,
        body: Value,
    },
    /// To an issue that is known by how it begins.
    Issue {
        who: Who,
        project: Uuid,
        slug: &'static str,
        kind: &'static str,
        words: &'static str,
        what: &'static str,
        body: Value,
    },
}

pub(crate) type Acts = Vec<(DateTime<Utc>, Act)>;

impl Act {
    /// By an SDK, which waits for nobody else.
    pub(crate) fn is_sent(&self) -> bool {
        matches!(self, Self::Envelope { .. })
    }

    pub(crate) async fn run(self, demo: &Demo) -> anyhow::Result<()> {
        match self {
            Self::Envelope { project, key, items } => demo.api.envelope(project, &key, items).await,
            Self::Post { who, path, body } => demo.api.post(&who, &path, &body).await.map(drop),
            Self::Put { who, path, body } => demo.api.put(&who, &path, &body).await.map(drop),
            Self::Issue { who, project, slug, kind, words, what, body } => {
                settle(demo).await?;
                let found = sqlx::query_scalar(
                    "SELECT id FROM crash_issues WHERE org_id = $1 AND project_id = $2 AND kind = $3
                        AND starts_with(value, $4) ORDER BY number LIMIT 1",
                );
                let found: Option<Uuid> = found
                    .bind(demo.team.org)
                    .bind(project)
                    .bind(kind)
                    .bind(words)
                    .fetch_optional(&demo.pool)
                    .await?;
                let issue =
                    found.with_context(|| format!("no issue {kind} `{words}…` in {slug}"))?;
                let path = format!("/api/crash/projects/{slug}/issues/{issue}/{what}");
                demo.api.post(&who, &path, &body).await.map(drop)
            }
        }
    }
}

/// Makes the projects.
pub(crate) async fn projects(demo: &Demo) -> anyhow::Result<Vec<Project>> {
    let admin = demo.team.admin()?;
    let mut projects = Vec::new();
    for family in stacks::read()? {
        let new = json!({"name": family.name, "slug": family.slug, "platform": family.platform});
        let made = demo.api.post(&admin.who, "/api/crash/projects", &new).await?;
        let dsn = made.get("dsn").and_then(Value::as_str).context("a project without a DSN")?;
        let (key, number) = dsn
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('@'))
            .and_then(|(key, rest)| Some((key, rest.rsplit_once('/')?.1)))
            .context("a DSN of another form")?;
        projects.push(Project {
            id: made
                .get("id")
                .and_then(Value::as_str)
                .context("a project without an id")?
                .parse()?,
            number: number.parse()?,
            key: key.to_owned(),
            family,
            releases: Vec::new(),
        });
    }
    Ok(projects)
}

/// When what is sent, and what is done about it.
pub(crate) fn plan(demo: &mut Demo, projects: &[Project], acts: &mut Acts) -> anyhow::Result<()> {
    for project in projects {
        for sort in &project.family.issues {
            // Enough to be looked at.
            let events = (sort.events * 3 / 5).max(5);
            for n in 0..events {
                let part = f64::from(n) / f64::from(events.saturating_sub(1).max(1));
                // Closer together at the end; by day more than by night; the first and the last where they are.
                let days = sort.last + (sort.first - sort.last) * (1.0 - part).powf(1.3);
                let shift =
                    if n == 0 { 0.0 } else { demo.chance.between(-0.3, 0.0) * (1.0 - part) };
                let at = demo.days_ago((days + shift).clamp(0.004, 30.0));
                let trace = demo.chance.hex(32);
                let release = releases::current(&project.releases, at);
                let of = Occurrence { family: &project.family, sort, at, release, trace: &trace };
                let items = issues::envelope(&mut demo.chance, &of);
                acts.push((
                    at,
                    Act::Envelope { project: project.number, key: project.key.clone(), items },
                ));
            }
            fate(demo, project, sort, acts)?;
        }
    }
    Ok(())
}

/// What the team did about an issue.
fn fate(
    demo: &mut Demo,
    project: &Project,
    sort: &stacks::Sort,
    acts: &mut Acts,
) -> anyhow::Result<()> {
    let somebody = usize::try_from(demo.chance.number(0, 5)).unwrap_or_default();
    let person = demo.team.nth(somebody)?.clone();
    let other = demo.team.nth(somebody + 1)?.clone();
    let begun = demo.days_ago(sort.first);
    let ended = demo.days_ago(sort.last);
    let mut act = |at: DateTime<Utc>, who: &Who, what: &'static str, body: Value| {
        let words = sort.value.split('{').next().unwrap_or_default();
        let (who, slug, kind) = (who.clone(), project.family.slug, sort.kind);
        acts.push((at, Act::Issue { who, project: project.id, slug, kind, words, what, body }));
    };
    match sort.fate {
        "open" => {}
        "assigned" => {
            let at = begun + (ended - begun) / 3;
            act(at, &other.who, "assign", json!({"assigned_to": person.id}));
            let said = "I can reproduce it on staging. It began with the change of the cart last week; a fix is on its way.";
            act(at + TimeDelta::minutes(41), &person.who, "comments", json!({"text": said}));
        }
        "resolved" => {
            let at = ended + TimeDelta::hours(2);
            let release = releases::current(&project.releases, at);
            act(at, &person.who, "resolve", json!({"in_release": release}));
            let said = format!("Fixed in `{release}`, deployed and watched for an hour.");
            act(at + TimeDelta::minutes(5), &person.who, "comments", json!({"text": said}));
        }
        "regressed" => {
            // In the middle of its events: a later release brings it back.
            let at = begun + (ended - begun) / 2;
            act(at, &person.who, "resolve", json!({}));
            act(
                ended.min(demo.now) + TimeDelta::minutes(20),
                &other.who,
                "comments",
                json!({"text": "It is back: the guard was lost in the merge."}),
            );
        }
        "ignored" => act(begun + TimeDelta::hours(5), &person.who, "ignore", json!({})),
        other => bail!("{other} becomes of no issue"),
    }
    Ok(())
}

/// Waits until all that was sent is processed.
pub(crate) async fn settle(demo: &Demo) -> anyhow::Result<()> {
    for _ in 0..1200 {
        let waiting = sqlx::query_scalar(
            "SELECT count(*) FROM crash_queue WHERE org_id = $1 AND parked_at IS NULL",
        );
        let waiting: i64 = waiting.bind(demo.team.org).fetch_one(&demo.pool).await?;
        if waiting == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    bail!("events are still not processed; is another server overloaded?")
}

/// What stands at the end: rules that tell of all this.
pub(crate) async fn end(demo: &Demo, projects: &[Project]) -> anyhow::Result<()> {
    let admin = demo.team.admin()?;
    for project in projects {
        let path = format!("/api/crash/projects/{}/alerts", project.family.slug);
        let rules = [
            json!({"name": "New issues", "condition": {"type": "new_issue"}, "actions": [{"type": "email", "users": [admin.id]}], "enabled": false}),
            json!({"name": "Back again", "condition": {"type": "regression"}, "actions": [{"type": "email", "users": [admin.id]}], "enabled": false}),
        ];
        for rule in rules {
            demo.api.post(&admin.who, &path, &rule).await?;
        }
    }
    Ok(())
}

/// A day's part, for what comes in the course of it.
pub(crate) fn later(at: DateTime<Utc>, days: f64) -> DateTime<Utc> {
    at + seconds(days * 86_400.0)
}
