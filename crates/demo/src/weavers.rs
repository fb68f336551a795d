//! Weavers, as a cluster would have left them: rows of an installation that there is not, so that no server
//! looks for their pods.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Demo, rows, seconds, text};

const INSTALLATION: &str = "demo";
const IMAGES: [&str; 3] = [
    "registry.example.com/agents/base:2026.11",
    "registry.example.com/agents/node:24",
    "registry.example.com/agents/rust:1.94",
];
const REPOS: [&str; 4] = ["shop-web", "checkout-api", "search-service", "stock-sync"];

/// Hours ago, hours that it ran, status, code and words.
type Life = (f64, f64, &'static str, Option<(&'static str, &'static str)>);

#[rustfmt::skip]
const LIVES: [Life; 22] = [
    (0.02, 0.0, "pending", Some(("image_pull", "the image registry.example.com/agents/base:2026.12 cannot be pulled: manifest unknown"))),
    (0.01, 0.0, "pending", None),
    (0.4, 8.0, "running", None),
    (1.1, 8.0, "running", None),
    (2.7, 8.0, "running", None),
    (5.2, 12.0, "running", None),
    (3.0, 2.9, "terminating", None),
    (4.0, 1.3, "succeeded", None),
    (7.5, 0.6, "succeeded", None),
    (9.0, 0.2, "failed", Some(("exit_code", "the process ended with 1"))),
    (20.0, 2.2, "succeeded", None),
    (26.0, 4.0, "expired", Some(("lifetime", "its lifetime of 4 hours is over"))),
    (31.0, 0.7, "failed", Some(("out_of_memory", "it took more memory than its limit of 4Gi"))),
    (49.0, 1.8, "succeeded", None),
    (52.0, 0.9, "deleted", Some(("deleted", "deleted by ada.okafor@example.com"))),
    (75.0, 3.1, "succeeded", None),
    (98.0, 0.1, "lost", Some(("pod_gone", "its pod is gone, and nobody here took it away"))),
    (122.0, 2.4, "succeeded", None),
    (146.0, 0.5, "failed", Some(("budget", "it has spent its budget of 5.00 USD"))),
    (171.0, 1.7, "succeeded", None),
    (220.0, 4.0, "expired", Some(("idle", "it did nothing for 30 minutes"))),
    (300.0, 1.1, "succeeded", None),
];

pub(crate) struct Weaver {
    pub(crate) id: Uuid,
    pub(crate) owner: Option<Uuid>,
    pub(crate) ready: DateTime<Utc>,
    pub(crate) ended: DateTime<Utc>,
}

pub(crate) async fn write(demo: &mut Demo) -> anyhow::Result<Vec<Weaver>> {
    let (mut weavers, mut table, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut logs = Vec::new();
    for (n, life) in LIVES.into_iter().enumerate() {
        let (hours, long, status, _) = life;
        let created = demo.now - seconds(hours * 3600.0);
        let waits = status == "pending";
        let is_over = !matches!(status, "pending" | "running" | "terminating");
        let scheduled = created + seconds(demo.chance.between(0.2, 1.4));
        let started = scheduled + seconds(demo.chance.between(1.5, 9.0));
        let ready = started + seconds(demo.chance.between(0.4, 2.0));
        let ended = started + seconds(long * 3600.0);
        let id = demo.chance.id(created);
        let owner = if n % 7 == 3 { None } else { Some(demo.team.nth(n)?.id) };
        let repo = demo.chance.one(&REPOS);
        table.push(row(
            demo,
            life,
            &Weaver { id, owner, ready, ended },
            [created, scheduled, started],
            repo,
        ));
        steps.extend(timeline(life, id, [created, scheduled, started, ready, ended], is_over));
        if !waits {
            let until = if is_over { ended } else { demo.now };
            logs.push((id, log(demo, repo, started, until, status)));
        }
        let ready = if waits { ended } else { ready };
        weavers.push(Weaver { id, owner, ready, ended: if is_over { ended } else { demo.now } });
    }
    rows::insert(&demo.pool, "weavers", &table).await?;
    rows::insert(&demo.pool, "weaver_events", &steps).await?;
    for (id, lines) in logs {
        store_log(demo, id, &lines).await?;
    }
    Ok(weavers)
}

fn row(demo: &Demo, life: Life, weaver: &Weaver, begun: [DateTime<Utc>; 3], repo: &str) -> Value {
    let (_, long, status, why) = life;
    let [created, scheduled, started] = begun;
    let waits = status == "pending";
    let is_over = !matches!(status, "pending" | "running" | "terminating");
    let image = IMAGES.get(repo.len() % IMAGES.len()).copied().unwrap_or_default();
    let exit = match status {
        "succeeded" => Some(0),
        "failed" => Some(1),
        _ => None,
    };
    let pulls = waits && why.is_some();
    json!({
        "id": weaver.id, "org_id": demo.team.org, "owner_id": weaver.owner, "installation": INSTALLATION,
        "spec": {"image": image, "command": ["agent"], "args": ["--task", "Make the tests of the branch pass"],
                 "workdir": "/workspace", "repo": format!("https://git.example.com/acme/{repo}.git"), "branch": "main",
                 "env": {"RUST_LOG": "info"}, "lifetime_hours": long.max(4.0), "scopes": ["llm:use", "threads:write"]},
        "tags": {"team": "shop", "task": repo}, "network": "loom-only", "cpu_millis": 2000, "memory_bytes": 4_294_967_296_i64,
        "ephemeral_bytes": 10_737_418_240_i64, "budget_nanousd": 5_000_000_000_i64, "idle_timeout_secs": 1800,
        "status": status,
        "reason_code": (!pulls).then_some(why).flatten().map(|(code, _)| code),
        "reason": (!pulls).then_some(why).flatten().map(|(_, words)| words),
        "ending": (status == "terminating").then_some("deleted"),
        "trouble": pulls.then_some(why).flatten().map(|(code, words)| json!({"code": code, "message": words, "since": text(scheduled)})),
        "pod_name": format!("weaver-{}", weaver.id), "pod_uid": Uuid::from_u128(weaver.id.as_u128() ^ 1),
        "node": (!waits).then(|| format!("worker-{}", 1 + repo.len() % 3)), "restarts": 0, "exit_code": exit,
        "created_at": text(created), "scheduled_at": text(scheduled),
        "started_at": (!waits).then(|| text(started)), "ready_at": (!waits).then(|| text(weaver.ready)),
        "exited_at": is_over.then(|| text(weaver.ended)), "ended_at": is_over.then(|| text(weaver.ended + TimeDelta::seconds(2))),
        "expires_at": text(created + seconds(long.max(4.0) * 3600.0)),
        "active_at": text(weaver.ended.min(demo.now)), "version": 5,
    })
}

fn timeline(life: Life, id: Uuid, at: [DateTime<Utc>; 5], is_over: bool) -> Vec<Value> {
    let (_, _, status, why) = life;
    let [created, scheduled, started, ready, ended] = at;
    let mut phases = vec![
        ("queued", created, None),
        ("scheduled", scheduled, None),
        ("pulling", scheduled + TimeDelta::milliseconds(120), None),
    ];
    if status == "pending" {
        phases.extend(why.map(|why| ("warning", scheduled + TimeDelta::seconds(3), Some(why))));
    } else {
        phases.extend([("started", started, None), ("ready", ready, None)]);
    }
    if is_over {
        let exit = match status {
            "succeeded" => Some(("completed", "the process ended with 0")),
            _ => why,
        };
        phases.extend([("exit", ended, exit), ("ended", ended + TimeDelta::seconds(2), why)]);
    }
    let mut steps = Vec::new();
    for (number, (phase, at, why)) in (1..).zip(phases) {
        steps.push(json!({"weaver_id": id, "number": number, "at": text(at), "phase": phase,
            "code": why.map(|(code, _)| code), "message": why.map(|(_, words)| words)}));
    }
    steps
}

/// What its agent said.
fn log(
    demo: &mut Demo,
    repo: &str,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    status: &str,
) -> Vec<(DateTime<Utc>, String)> {
    const STEPS: [&str; 8] = [
        "agent: reading src/main (14 files)",
        "agent: POST /v1/messages 200 in 3.2 s, 1,204 tokens",
        "agent: running the tests",
        "test: 212 passed, 3 failed, 1 skipped",
        "agent: editing 2 files",
        "test: 215 passed, 1 skipped",
        "warning: slow answer of the model, 14.1 s",
        "agent: POST /v1/messages 200 in 1.9 s, 388 tokens",
    ];
    let mut lines = vec![
        (from, format!("Cloning into '/workspace'… https://git.example.com/acme/{repo}.git")),
        (
            from + TimeDelta::milliseconds(1900),
            "Receiving objects: 100% (18211/18211), 22.41 MiB, done.".to_owned(),
        ),
        (
            from + TimeDelta::milliseconds(2300),
            "agent: session begins, model claude-sonnet-4-5".to_owned(),
        ),
    ];
    let mut at = from + TimeDelta::seconds(3);
    for _ in 0..240 {
        at += seconds(demo.chance.between(0.4, 40.0));
        if at >= to {
            break;
        }
        lines.push((at, demo.chance.one(&STEPS).to_owned()));
    }
    match status {
        "succeeded" => lines.push((to, "agent: done, pushed to branch agent/fix-tests".to_owned())),
        "failed" => lines.push((
            to,
            "\u{1b}[31merror\u{1b}[0m: the tests still fail after 5 attempts".to_owned(),
        )),
        _ => {}
    }
    lines
}

async fn store_log(demo: &Demo, id: Uuid, lines: &[(DateTime<Utc>, String)]) -> anyhow::Result<()> {
    let (Some((first, _)), Some((last, _))) = (lines.first(), lines.last()) else { return Ok(()) };
    let mut body = String::new();
    let mut bytes = 0;
    for (at, line) in lines {
        body.push_str(&json!({"at": at, "text": line}).to_string());
        body.push('\n');
        bytes += line.len() + 32;
    }
    let count = i32::try_from(lines.len())?;
    sqlx::query(
        "INSERT INTO weaver_log_chunks (weaver_id, first_line, lines, first_at, last_at, bytes, body)
         VALUES ($1, 1, $2, $3, $4, $5, $6)",
    )
    .bind(id)
    .bind(count)
    .bind(first)
    .bind(last)
    .bind(i32::try_from(bytes)?)
    .bind(zstd::bulk::compress(body.as_bytes(), 1)?)
    .execute(&demo.pool)
    .await?;
    sqlx::query(
        "INSERT INTO weaver_log_state (weaver_id, next_line, bytes, complete) VALUES ($1, $2, $3, true)",
    )
    .bind(id)
    .bind(i64::from(count) + 1)
    .bind(i64::try_from(bytes)?)
    .execute(&demo.pool)
    .await?;
    Ok(())
}
