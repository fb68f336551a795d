//! Usage over time: at every moment the sum of the rows, however many of them are summed already.

use std::time::{Duration, Instant};

use loom_testkit::{Caller, Setup, TestApp, app::UPSTREAM_KEY};
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, ask, stream};

const NUMBERS: &str = "count(*)::bigint AS requests,
    count(*) FILTER (WHERE outcome = 'failed') AS errors,
    count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE NOT usage_complete) AS incomplete,
    count(*) FILTER (WHERE cost_nanousd IS NULL AND coalesce(input_tokens, output_tokens) IS NOT NULL) AS unpriced,
    coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
    coalesce(sum(cache_read_tokens), 0)::bigint AS cache_read_tokens,
    coalesce(sum(coalesce(cache_write_5m_tokens, 0) + coalesce(cache_write_1h_tokens, 0)), 0)::bigint AS cache_write_tokens,
    coalesce(sum(reasoning_tokens), 0)::bigint AS reasoning_tokens,
    coalesce(sum(web_searches), 0)::bigint AS web_searches,
    coalesce(sum(cost_nanousd), 0)::bigint AS nanousd";

/// The numbers of a group, and its name, as SQL has them.
fn plain(group: &Value) -> Value {
    let mut group = group.clone();
    let members = group.as_object_mut().unwrap();
    members.retain(|name, _| !name.ends_with("_ms"));
    let cost = members.remove("cost_usd").unwrap().as_f64().unwrap();
    members.insert("nanousd".to_owned(), json!((cost * 1e9).round() as i64));
    group
}

fn sorted(mut all: Vec<Value>) -> Vec<Value> {
    all.sort_by_key(Value::to_string);
    all
}

/// Usage, told by each caller, is what a query over the rows says, whatever it is grouped by.
async fn compare(app: &TestApp, callers: &[&Caller]) {
    let ways = [
        ("model", "SELECT provider, model, NUMBERS FROM llm_requests GROUP BY provider, model"),
        ("provider", "SELECT provider, NUMBERS FROM llm_requests GROUP BY provider"),
        ("user", "SELECT user_id, NUMBERS FROM llm_requests GROUP BY user_id"),
        ("api_key", "SELECT api_key_id, NUMBERS FROM llm_requests GROUP BY api_key_id"),
        ("weaver", "SELECT weaver_id, NUMBERS FROM llm_requests GROUP BY weaver_id"),
        ("thread", "SELECT 'T-' || thread_id AS thread_id, NUMBERS FROM llm_requests GROUP BY thread_id"),
        (
            "tag",
            "SELECT tag, NUMBERS FROM llm_requests LEFT JOIN LATERAL (SELECT DISTINCT unnest(tags) AS tag) t ON true GROUP BY tag",
        ),
        (
            "hour,model",
            "SELECT to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:00:00.000\"Z\"') AS at, provider, model, NUMBERS
               FROM llm_requests GROUP BY 1, 2, 3",
        ),
        (
            "day",
            "SELECT to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T00:00:00.000Z\"') AS at, NUMBERS FROM llm_requests GROUP BY 1",
        ),
    ];
    let total = app.rows(&format!("SELECT {NUMBERS} FROM llm_requests")).await.remove(0);
    for (by, query) in ways {
        let expected = sorted(app.rows(&query.replace("NUMBERS", NUMBERS)).await);
        for caller in callers {
            let path = format!("/api/llm/usage?group_by={by}&limit=1000");
            let usage = caller.get(&path).await.expect(200).json();
            let groups = usage["groups"].as_array().unwrap().iter().map(plain).collect();
            assert_eq!(json!(sorted(groups)), json!(expected), "{by}");
            assert_eq!(plain(&usage["total"]), total, "{by}");
            assert_eq!(usage["truncated"], false);
        }
    }
}

/// Requests of every kind, from several who work at once.
async fn work(callers: &[Caller], rounds: usize) {
    let tasks = callers.iter().enumerate().map(|(n, caller)| {
        let thread = format!("T-0199aaaa-0000-7000-8000-00000000000{n}");
        let caller = caller.with("x-loom-thread-id", &thread).with("x-loom-tags", "a,b,a");
        // The server's own credentials would rest after a 429.
        let caller = caller.with("x-loom-provider-token", UPSTREAM_KEY);
        tokio::spawn(async move {
            for round in 0..rounds {
                let op = Op::ALL[(n + round) % 3];
                match round % 4 {
                    0 => drop(ask(&caller, op, op.priced_model()).await.expect(200)),
                    1 => drop(stream(&caller, op, "model-of-tomorrow").await),
                    2 => drop(ask(&caller, op, "mock-error-429").await.expect(429)),
                    _ => drop(stream(&caller, op, "mock-cut").await),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// Runs the job now, or when the run that its schedule has begun is over.
async fn sum_up(jobs: &loom_jobs::JobScheduler) {
    loom_testkit::eventually(async || jobs.run_now("usage-rollup").await.ok()).await;
}

#[tokio::test]
async fn usage_is_the_sum_of_the_rows_on_every_server_while_sums_are_taken() {
    let app =
        Setup::default().set("LOOM_SERVER_LLM_CALLER_TOKENS", "anthropic,openai").start().await;
    let user = app.user("a@example.com").await;
    let replica = app.replica().await;
    let there = user.at(&replica);
    let callers = [user.caller.clone(), there.clone(), user.caller.clone(), there.clone()];
    let jobs = [&app.running.features.jobs, &replica.features.jobs];
    let mut rows = 0;
    for round in 0..3 {
        // Both take sums while rows are written.
        let (working, ()) = tokio::join!(work(&callers, 8), async {
            for job in jobs {
                sum_up(job).await;
            }
        });
        let () = working;
        rows += 32;
        assert_eq!(app.llm_requests(rows).await.len(), rows, "{round}");
        compare(&app, &[&user, &there]).await;
        sum_up(jobs[round % 2]).await;
        compare(&app, &[&user, &there]).await;
    }
    // All of it is in the sums by now.
    let summed = app.rows(
        "SELECT sum(requests)::bigint AS n FROM llm_usage_sums
          WHERE dimension = 'all' AND grain = 'day' AND scope = '00000000-0000-0000-0000-000000000000'",
    );
    assert_eq!(summed.await[0]["n"], rows);
    replica.shut_down().await;
}

#[tokio::test]
async fn a_day_ends_at_midnight_and_a_late_row_is_in_the_day_it_began() {
    // 2027-01-15 08:00 UTC.
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    app.clock.advance(Duration::from_secs(15 * 3600 + 59 * 60));
    // Begun at 23:59 and still running past midnight.
    let late = super::begin_stream(&user, Op::Messages, "mock-paced-20").await;
    ask(&user, Op::Messages, SONNET).await.expect(200);
    app.clock.advance(Duration::from_secs(120));
    ask(&user, Op::Chat, GPT).await.expect(200);
    app.llm_requests(2).await;
    app.running.features.jobs.run_now("usage-rollup").await.unwrap();
    compare(&app, &[&user]).await;
    super::receive(late).await;
    assert_eq!(app.llm_requests(3).await.len(), 3);
    let days = async || {
        let usage = user.get("/api/llm/usage?group_by=day").await.expect(200).json();
        let groups = usage["groups"].as_array().unwrap().clone();
        groups.iter().map(|g| (g["at"].clone(), g["requests"].clone())).collect::<Vec<_>>()
    };
    let expected = [
        (json!("2027-01-15T00:00:00.000Z"), json!(2)),
        (json!("2027-01-16T00:00:00.000Z"), json!(1)),
    ];
    for _ in 0..2 {
        compare(&app, &[&user]).await;
        assert_eq!(days().await, expected);
        for (span, requests) in [
            ("from=2027-01-15&to=2027-01-16", 2),
            ("from=2027-01-16&to=2027-01-17", 1),
            ("from=2027-01-15T23:00:00Z&to=2027-01-16T01:00:00Z", 3),
            ("from=2027-01-15T23:30:00Z&to=2027-01-15T23:31:00Z", 2),
            ("from=2027-01-14T05:00:00Z&to=2027-01-15T23:00:00Z", 0),
            ("from=2027-01-10T05:00:00Z&to=2027-01-16T00:00:00Z", 2),
        ] {
            let usage = user.get(&format!("/api/llm/usage?{span}")).await.expect(200).json();
            assert_eq!(usage["total"]["requests"], requests, "{span}");
        }
        app.running.features.jobs.run_now("usage-rollup").await.unwrap();
    }
}

#[tokio::test]
async fn the_dearest_are_told_whether_they_are_summed_or_not() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let tagged = async |tag: &str, times: usize| {
        for _ in 0..times {
            ask(&user.with("x-loom-tags", tag), Op::Messages, SONNET).await.expect(200);
        }
    };
    tagged("dear", 2).await;
    tagged("cheap", 1).await;
    app.llm_requests(3).await;
    app.running.features.jobs.run_now("usage-rollup").await.unwrap();
    tagged("cheap", 2).await;
    app.llm_requests(5).await;
    let usage = user.get("/api/llm/usage?group_by=tag&limit=1").await.expect(200).json();
    assert_eq!(usage["groups"][0]["tag"], "cheap", "{usage}");
    assert_eq!((&usage["groups"][0]["requests"], &usage["truncated"]), (&json!(3), &json!(true)));
    assert!(usage["groups"][0]["latency_p50_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(usage["total"]["requests"], 5);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_the_parameters_name() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for (query, name) in [
        ("group_by=moon", "group_by"),
        ("group_by=day,hour", "group_by"),
        ("group_by=user,model", "group_by"),
        ("from=yesterday", "from"),
        ("to=2027-13-01", "to"),
        ("from=2026-02-01&to=2026-01-01", "from"),
        ("group_by=hour&from=2026-01-01&to=2026-03-01", "from"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
    ] {
        let answer = user.get(&format!("/api/llm/usage?{query}")).await.expect(422).json();
        assert_eq!(answer["errors"][0]["path"], name, "{query}: {answer}");
    }
}

/// Prints how long usage over the requests of one organisation in 90 days takes:
/// `cargo nextest run -p loom-server --features loom-server/otlp --run-ignored only --no-capture
/// usage_over_many`, with `LOOM_BENCH_ROWS` (10 million when absent). One in twenty is stored and goes
/// through the job, which makes nearly as many sums as all would, but for threads: these are copied, to
/// as many as there would be. Of the log itself usage reads what is not summed yet.
#[tokio::test]
#[ignore = "a measurement, by whoever changes how usage is read"]
#[expect(clippy::disallowed_methods, reason = "how many rows is whoever measures' choice")]
async fn what_usage_over_many_requests_costs() {
    const SAMPLE: i64 = 20;
    let rows: i64 =
        std::env::var("LOOM_BENCH_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000_000);
    let app = TestApp::start().await;
    app.running.features.jobs.switch("usage-rollup", false).await.unwrap();
    let user = app.user("a@example.com").await;
    let pool = app.database.pool();
    let days = "DO $$ BEGIN FOR n IN 1..91 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF llm_requests FOR VALUES FROM (%L) TO (%L)',
          'llm_requests_' || to_char(current_date - n, 'YYYY_MM_DD'),
          (current_date - n)::text || ' 00:00:00+00', (current_date - n + 1)::text || ' 00:00:00+00');
        END LOOP; END $$";
    sqlx::raw_sql(days).execute(pool).await.unwrap();
    // 100 users with a key each, 10 models, 7 teams, 20 requests to a thread.
    let fill = async |from: i64, to: i64, all: i64| {
        let fill = format!(
            "INSERT INTO llm_requests (id, started_at, org_id, user_id, api_key_id, thread_id, tags, request_id, operation,
               provider, model, streamed, outcome, status, input_tokens, output_tokens, cache_read_tokens, cost_nanousd,
               latency_ms, first_token_ms, request_bytes, response_bytes)
             SELECT gen_random_uuid(), now() - interval '90 days' * (n::float8 / {all}), '{}',
               ('00000000-0000-7000-8000-' || lpad((n * 7919 % 100)::text, 12, '0'))::uuid,
               ('00000000-0000-7000-9000-' || lpad((n * 7919 % 100)::text, 12, '0'))::uuid,
               ('00000000-0000-7000-a000-' || lpad((n / 2000 * 100 + n * 7919 % 100)::text, 12, '0'))::uuid,
               ARRAY['team-' || n % 7], n::text, 'chat', 'openai', 'model-' || (n / 100 % 10), true,
               CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'succeeded' END, 200, 1000 + n % 500, n % 300, 4000, n % 9999999,
               200 + (n * 7919) % 20000, 100 + (n * 104729) % 900, 5000, 5000
             FROM generate_series({from}::bigint, {to}) AS n",
            user.org
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(pool).await.unwrap();
    };
    let sample = rows / SAMPLE;
    fill(1, sample, sample).await;
    let began = Instant::now();
    app.running.features.jobs.run_now("usage-rollup").await.unwrap();
    println!("{sample} rows summed in {:?}", began.elapsed());
    let multiply = format!(
        "SET LOCAL statement_timeout = 0;
         INSERT INTO llm_usage_sums SELECT org_id, scope, grain, dimension, at, n || key, requests, failed, cancelled,
            incomplete, unpriced, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,
            web_searches, cost_nanousd, latency, first_token
           FROM llm_usage_sums, generate_series(2, {SAMPLE}) AS n WHERE dimension = 'thread'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(multiply)).execute(pool).await.unwrap();
    let analyze = "SET LOCAL statement_timeout = 0; ANALYZE llm_requests; ANALYZE llm_usage_sums";
    sqlx::raw_sql(analyze).execute(pool).await.unwrap();
    let sizes = app.rows(
        "SELECT pg_size_pretty(sum(pg_total_relation_size(inhrelid))) AS log,
                pg_size_pretty(pg_total_relation_size('llm_usage_sums')) AS sums,
                (SELECT count(*) FROM llm_usage_sums) AS rows_of_sums FROM pg_inherits
          WHERE inhparent = 'llm_requests'::regclass",
    );
    println!("{}", sizes.await[0]);
    // As much as comes between two runs of the job at 100 requests a second.
    let tail = format!(
        "INSERT INTO llm_requests (id, started_at, org_id, user_id, tags, request_id, operation, provider, model,
           streamed, outcome, latency_ms, request_bytes, response_bytes)
         SELECT gen_random_uuid(), now() - interval '30 s' * (n / 3000.0), '{}', '{}', '{{}}', n::text, 'chat', 'openai',
           'model-' || n % 10, true, 'succeeded', n, 1, 1 FROM generate_series(1, 3000) AS n",
        user.org, user.id
    );
    for tailed in [false, true] {
        if tailed {
            sqlx::raw_sql(sqlx::AssertSqlSafe(tail.clone())).execute(pool).await.unwrap();
        }
        for by in [
            "day",
            "hour",
            "model",
            "provider",
            "day,model",
            "user",
            "api_key",
            "day,user",
            "tag",
            "thread",
        ] {
            let back = if by == "hour" { 31 } else { 90 };
            let from = app.clock.now() - chrono::TimeDelta::days(back);
            let from = from.format("%Y-%m-%dT%H:%M:%SZ");
            let path = format!("/api/llm/usage?group_by={by}&from={from}");
            let mut times = Vec::new();
            for _ in 0..20 {
                let began = Instant::now();
                user.get(&path).await.expect(200);
                times.push(began.elapsed());
            }
            times.sort_unstable();
            println!(
                "tail {tailed}, {by}, {back} days: median {:?}, slowest {:?}",
                times[10], times[19]
            );
        }
    }
}
