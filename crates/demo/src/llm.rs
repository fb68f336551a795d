//! Requests to models: by agents in their threads, by weavers, by bots.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{DAYS, Demo, rows, seconds, text, threads::Thread, weavers::Weaver};

/// Provider, model, US dollars for a million tokens in, out, read from the cache; milliseconds to the first token,
/// and tokens in a second.
const MODELS: [(&str, &str, f64, f64, f64, f64, f64); 5] = [
    ("anthropic", "claude-sonnet-4-5", 3.0, 15.0, 0.3, 1150.0, 74.0),
    ("anthropic", "claude-opus-4-5", 5.0, 25.0, 0.5, 1900.0, 52.0),
    ("anthropic", "claude-haiku-4-5", 1.0, 5.0, 0.1, 520.0, 140.0),
    ("openai", "gpt-5.1", 1.25, 10.0, 0.125, 1600.0, 81.0),
    ("openai", "gpt-5-mini", 0.25, 2.0, 0.025, 700.0, 150.0),
];
const BOTS: [(&str, &str); 3] =
    [("ci-review", "review"), ("nightly-agents", "nightly"), ("docs-bot", "docs")];
/// Bots' requests of a day, about.
const A_DAY: f64 = 70.0;

/// For what a request was made.
#[derive(Default)]
struct For {
    user: Option<Uuid>,
    key: Option<Uuid>,
    thread: Option<Uuid>,
    weaver: Option<Uuid>,
    tag: Option<&'static str>,
    model: &'static str,
}

pub(crate) async fn write(
    demo: &mut Demo,
    threads: &[Thread],
    weavers: &[Weaver],
) -> anyhow::Result<()> {
    let keys = keys(demo).await?;
    limits(demo, &keys).await?;
    let mut all = Vec::new();
    for thread in threads {
        let owner = demo.team.nth(thread.owner)?.id;
        let mut at = thread.begun;
        for _ in 0..thread.turns {
            at += seconds(demo.chance.between(5.0, 200.0));
            let of = For {
                user: Some(owner),
                thread: Some(thread.id),
                tag: Some("agents"),
                model: thread.model,
                ..For::default()
            };
            all.push(request(demo, at, &of));
        }
    }
    for weaver in weavers {
        let mut at = weaver.ready;
        while at < weaver.ended.min(demo.now) && weaver.ready < weaver.ended {
            let of = For {
                user: weaver.owner,
                weaver: Some(weaver.id),
                tag: Some("weavers"),
                model: "claude-sonnet-4-5",
                ..For::default()
            };
            all.push(request(demo, at, &of));
            at += seconds(demo.chance.between(120.0, 1500.0));
        }
    }
    for day in 0..DAYS {
        let begin = demo.now - TimeDelta::days(day + 1);
        // Half of it at the weekend, and more each week.
        #[expect(clippy::cast_precision_loss, reason = "days")]
        let much = A_DAY
            * (1.4 - day as f64 / 60.0)
            * if (begin.timestamp() / 86_400 + 4) % 7 >= 5 { 0.5 } else { 1.0 };
        #[expect(clippy::cast_possible_truncation, reason = "some dozens")]
        for _ in 0..much as i64 {
            let at = begin + seconds(demo.chance.part().powf(0.8) * 86_400.0);
            let (n, (_, tag)) = pick(demo);
            let (_, model, ..) = demo.chance.one(&MODELS);
            let person = usize::try_from(demo.chance.number(0, 5))?;
            let user = if demo.chance.holds(0.45) { Some(demo.team.nth(person)?.id) } else { None };
            let key = if user.is_none() { keys.get(n).copied() } else { None };
            all.push(request(
                demo,
                at,
                &For { user, key, tag: Some(tag), model, ..For::default() },
            ));
        }
    }
    // In the order in which they would have been written.
    all.sort_by_key(|(at, _)| *at);
    let all: Vec<Value> = all.into_iter().map(|(_, row)| row).collect();
    rows::insert(&demo.pool, "llm_requests", &all).await?;
    costs(demo).await
}

fn pick(demo: &mut Demo) -> (usize, (&'static str, &'static str)) {
    let n = usize::try_from(demo.chance.number(0, 2)).unwrap_or_default();
    (n, BOTS.get(n).copied().unwrap_or_default())
}

/// Keys of the bots.
async fn keys(demo: &Demo) -> anyhow::Result<Vec<Uuid>> {
    let admin = demo.team.admin()?;
    let path = format!("/api/orgs/{}/api-keys", demo.team.org);
    let mut keys = Vec::new();
    for (n, (name, _)) in (0..).zip(BOTS) {
        let new = json!({"name": name, "kind": "service", "scopes": ["llm:use", "threads:read", "threads:write"],
                         "monthly_budget_usd": 50 + 75 * n});
        let made = demo.api.post(&admin.who, &path, &new).await?;
        let id =
            made.pointer("/id").or_else(|| made.pointer("/api_key/id")).and_then(Value::as_str);
        keys.extend(id.and_then(|id| id.parse::<Uuid>().ok()));
    }
    sqlx::query("UPDATE api_keys SET created_at = $2, last_used_at = $3 WHERE id = ANY($1)")
        .bind(&keys)
        .bind(demo.days_ago(34.0))
        .bind(demo.days_ago(0.01))
        .execute(&demo.pool)
        .await?;
    Ok(keys)
}

async fn limits(demo: &Demo, keys: &[Uuid]) -> anyhow::Result<()> {
    let admin = demo.team.admin()?;
    let path = format!("/api/orgs/{}/llm/limits", demo.team.org);
    let mut limits = vec![
        (
            "organisation/all".to_owned(),
            json!({"usd_per_month": 900.0, "usd_per_day": 60.0, "requests_per_minute": 600}),
        ),
        (format!("user/{}", demo.team.nth(3)?.id), json!({"usd_per_month": 120.0})),
        ("model/claude-opus-*".to_owned(), json!({"usd_per_day": 25.0, "concurrent": 4})),
    ];
    limits.extend(keys.first().map(|key| {
        (format!("api_key/{key}"), json!({"requests_per_minute": 60, "tokens_per_minute": 400_000}))
    }));
    for (place, limit) in limits {
        demo.api.put(&admin.who, &format!("{path}/{place}"), &limit).await?;
    }
    let settings = format!("/api/orgs/{}/llm/prices", demo.team.org);
    let price = json!({"provider": "openai", "model": "acme-coder-1", "input": 0.4, "output": 1.6});
    demo.api.post(&admin.who, &settings, &price).await?;
    Ok(())
}

fn request(demo: &mut Demo, at: DateTime<Utc>, of: &For) -> (DateTime<Utc>, Value) {
    let at = at.min(demo.now - TimeDelta::seconds(40));
    let found = MODELS.iter().find(|(_, model, ..)| *model == of.model).copied();
    let (provider, model, input, output, cached, first, pace) =
        found.unwrap_or(("openai", "gpt-5.1", 1.25, 10.0, 0.125, 1600.0, 81.0));
    let failed = demo.chance.holds(0.021);
    let cancelled = !failed && demo.chance.holds(0.012);
    let new = demo.chance.skewed(2600.0, 0.7).round();
    let read = if demo.chance.holds(0.7) { demo.chance.skewed(11_000.0, 0.6).round() } else { 0.0 };
    let said = demo.chance.skewed(420.0, 0.8).round();
    let first_ms = demo.chance.skewed(first, 0.28);
    let latency = first_ms + said / pace * 1000.0;
    let nano = (new * input + read * cached + said * output) * 1000.0;
    let (status, code): (Option<i32>, Option<&str>) = match (failed, cancelled) {
        (true, _) => demo.chance.one(&[
            (Some(429), Some("rate_limited")),
            (Some(502), Some("upstream_error")),
            (Some(504), Some("upstream_timeout")),
            (Some(400), Some("invalid_request")),
        ]),
        (_, true) => (None, None),
        _ => (Some(200), None),
    };
    #[expect(clippy::cast_possible_truncation, reason = "tokens, and billionths of a few dollars")]
    let whole = |number: f64| number.round() as i64;
    let counted = |number: f64| (!failed).then(|| whole(number));
    let id = demo.chance.id(at);
    let row = json!({
        "id": id, "started_at": text(at), "org_id": demo.team.org, "user_id": of.user, "api_key_id": of.key,
        "thread_id": of.thread, "weaver_id": of.weaver, "tags": of.tag.into_iter().collect::<Vec<_>>(),
        "request_id": demo.chance.id(at).to_string(),
        "operation": if provider == "anthropic" { "messages" } else { "chat" },
        "provider": provider, "model": model, "response_model": counted(1.0).map(|_| model),
        "upstream_request_id": counted(1.0).map(|_| format!("req_{}", demo.chance.hex(20))),
        "streamed": demo.chance.holds(0.85),
        "outcome": if failed { "failed" } else if cancelled { "cancelled" } else { "succeeded" },
        "status": status, "error_code": code,
        "input_tokens": counted(new + read), "output_tokens": counted(said), "cache_read_tokens": counted(read),
        "cache_write_5m_tokens": counted(0.0), "cache_write_1h_tokens": counted(0.0),
        "reasoning_tokens": counted(if provider == "openai" { (said * 0.4).round() } else { 0.0 }),
        "cost_nanousd": counted(nano),
        "latency_ms": if failed { first_ms } else { latency }, "first_token_ms": counted(first_ms),
        "request_bytes": whole((new + read) * 4.0), "response_bytes": whole(said * 5.0),
        "served_from": null, "web_searches": null, "service_tier": "standard", "usage_complete": !cancelled,
        "seq": 0,
    });
    (at, row)
}

/// The order of the rows for the sums, and what weavers have spent.
async fn costs(demo: &Demo) -> anyhow::Result<()> {
    sqlx::query(
        "UPDATE llm_requests SET seq = nextval('llm_requests_seq') WHERE org_id = $1 AND seq = 0",
    )
    .bind(demo.team.org)
    .execute(&demo.pool)
    .await?;
    sqlx::query(
        "INSERT INTO llm_weaver_costs (org_id, weaver_id, requests, nanousd, last_at)
         SELECT org_id, weaver_id, count(*), coalesce(sum(cost_nanousd), 0), max(started_at) FROM llm_requests
          WHERE org_id = $1 AND weaver_id IS NOT NULL GROUP BY 1, 2
         ON CONFLICT DO NOTHING",
    )
    .bind(demo.team.org)
    .execute(&demo.pool)
    .await?;
    // What the budgets of this month and day have lost already.
    sqlx::query(
        "INSERT INTO llm_limit_uses (org_id, kind, subject, measure, window_start, used, full_at)
         SELECT l.org_id, l.kind, l.subject, w.measure, w.begin, coalesce(sum(r.cost_nanousd), 0), w.begin
           FROM llm_limits l
           CROSS JOIN LATERAL (VALUES ('month', date_trunc('month', $2 AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', l.month_nanousd),
                                      ('day', date_trunc('day', $2 AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', l.day_nanousd))
                              AS w (measure, begin, most)
           LEFT JOIN llm_requests r ON r.org_id = l.org_id AND r.started_at >= w.begin
                AND (l.kind = 'organisation' OR (l.kind = 'user' AND r.user_id::text = l.subject)
                     OR (l.kind = 'model' AND r.model LIKE replace(l.subject, '*', '%')))
          WHERE l.org_id = $1 AND w.most IS NOT NULL GROUP BY 1, 2, 3, 4, 5
         ON CONFLICT DO NOTHING",
    )
    .bind(demo.team.org)
    .bind(demo.now)
    .execute(&demo.pool)
    .await?;
    Ok(())
}
