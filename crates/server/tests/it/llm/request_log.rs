//! The log of requests: what is found in it, and by whom.

use loom_core::principal::OrgRole;
use loom_testkit::{Setup, TestApp};
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, ask, stream};

fn ids(page: &Value) -> Vec<Value> {
    page["requests"].as_array().unwrap().iter().map(|request| request["id"].clone()).collect()
}

#[tokio::test]
async fn requests_are_found_by_whatever_is_known_of_them() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let thread = format!("T-{}", loom_core::id::new_uuid(app.clock.now()));
    let weaver = app.weaver_of(&user).await.to_string();
    let named = user.with("x-loom-thread-id", &thread).with("x-loom-tags", "a,b");
    let first = ask(&named, Op::Messages, SONNET).await.expect(200);
    stream(&user.with("x-loom-weaver-id", &weaver), Op::Chat, GPT).await;
    ask(&user, Op::Responses, "mock-error-429").await.expect(429);
    let rows = app.llm_requests(3).await;
    let id = |n: usize| rows[n]["id"].clone();
    let request = first.header("x-loom-request-id").unwrap();
    let key = rows[0]["api_key_id"].as_str().unwrap();
    let began = rows[1]["started_at"].as_str().unwrap().replace('+', "%2B");
    for (filter, found) in [
        (String::new(), vec![id(2), id(1), id(0)]),
        (format!("model={SONNET}"), vec![id(0)]),
        ("provider=openai".to_owned(), vec![id(2), id(1)]),
        ("outcome=failed".to_owned(), vec![id(2)]),
        ("status=429".to_owned(), vec![id(2)]),
        (format!("user_id={}", user.id), vec![id(2), id(1), id(0)]),
        (format!("api_key_id={key}"), vec![id(2), id(1), id(0)]),
        (format!("thread_id={thread}"), vec![id(0)]),
        (format!("weaver_id={weaver}"), vec![id(1)]),
        ("tag=b".to_owned(), vec![id(0)]),
        ("tag=c".to_owned(), vec![]),
        (format!("request_id={request}"), vec![id(0)]),
        ("min_cost_usd=0.005".to_owned(), vec![id(0)]),
        (format!("from={began}"), vec![id(2), id(1)]),
        (format!("to={began}"), vec![id(0)]),
        (format!("provider=openai&outcome=succeeded&from={began}"), vec![id(1)]),
    ] {
        let page = user.get(&format!("/api/llm/requests?{filter}")).await.expect(200).json();
        assert_eq!(ids(&page), found, "{filter}");
    }
    let one = user.get(&format!("/api/llm/requests/{}", id(0).as_str().unwrap())).await;
    let one = one.expect(200).json();
    assert_eq!(
        one["usage"],
        json!({"input_tokens": 1200, "output_tokens": 40, "cache_read_tokens": 4000,
        "cache_write_tokens": 500, "cache_write_1h_tokens": 200, "reasoning_tokens": null})
    );
    assert_eq!((&one["cost_usd"], &one["tags"]), (&json!(0.007725), &json!(["a", "b"])));
    assert_eq!(one["thread_id"], thread.as_str());
    for bad in ["thread_id=x", "min_cost_usd=-1", "limit=0", "outcome=done", "model="] {
        let answer = user.get(&format!("/api/llm/requests?{bad}")).await;
        assert!([400, 422].contains(&answer.status.as_u16()), "{bad}: {answer:?}");
    }
    for none in ["0199aaaa-0000-7000-8000-00000000dead", "8f14e45f-ceea-467f-ab1a-4a1f3f0a8b3d"] {
        user.get(&format!("/api/llm/requests/{none}")).await.expect(404);
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_a_cursor_is_good_for_its_filters() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for _ in 0..5 {
        ask(&user, Op::Chat, GPT).await.expect(200);
    }
    let mut all: Vec<_> = app.llm_requests(5).await.iter().map(|row| row["id"].clone()).collect();
    all.reverse();
    let mut found = Vec::new();
    let mut path = "/api/llm/requests?limit=2".to_owned();
    loop {
        let page = user.get(&path).await.expect(200).json();
        found.extend(ids(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        user.get(&format!("/api/llm/requests?model=x&cursor={next}")).await.expect(400);
        path = format!("/api/llm/requests?limit=2&cursor={next}");
    }
    assert_eq!(found, all);
}

#[tokio::test]
async fn members_see_their_own_and_admins_all() {
    let app = TestApp::start().await;
    let owner = app.user("a@example.com").await;
    let member = app.user("b@example.com").await;
    app.join(member.id, owner.org, OrgRole::Member).await;
    let org = owner.org.to_string();
    let here = member.with("x-loom-org", &org);
    let new = json!({"name": "robot", "kind": "service", "scopes": ["llm:use"]});
    let made = owner.post(&format!("/api/orgs/{org}/api-keys"), &new).await.expect(201).json();
    let robot = app.anonymous().with_key(made["secret"].as_str().unwrap());
    for caller in [&owner.caller, &here, &robot] {
        ask(caller, Op::Chat, GPT).await.expect(200);
    }
    let rows = app.llm_requests(3).await;
    let find = |user: Value| rows.iter().find(|row| row["user_id"] == user).unwrap()["id"].clone();
    let members = find(json!(member.id));
    let robots = find(Value::Null);
    assert_eq!(
        ids(&here.get("/api/llm/requests").await.expect(200).json()),
        std::slice::from_ref(&members)
    );
    assert_eq!(
        ids(&robot.get("/api/llm/requests").await.expect(200).json()),
        std::slice::from_ref(&robots)
    );
    assert_eq!(ids(&owner.get("/api/llm/requests").await.expect(200).json()).len(), 3);
    // An admin's key that is only for models sees what is the admin's own.
    let new = json!({"name": "models", "kind": "personal", "scopes": ["llm:use"]});
    let made = owner.post(&format!("/api/orgs/{org}/api-keys"), &new).await.expect(201).json();
    let narrow = owner.with_key(made["secret"].as_str().unwrap());
    assert_eq!(
        ids(&narrow.get("/api/llm/requests").await.expect(200).json()),
        [find(json!(owner.id))]
    );
    let path = format!("/api/llm/requests/{}", robots.as_str().unwrap());
    here.get(&path).await.expect(404);
    owner.get(&path).await.expect(200);
    // The same of usage, before it is summed and after.
    for _ in 0..2 {
        for (caller, count) in [(&here, 1), (&robot, 1), (&narrow, 1), (&owner.caller, 3)] {
            for by in ["day", "model", "api_key", "tag"] {
                let usage =
                    caller.get(&format!("/api/llm/usage?group_by={by}")).await.expect(200).json();
                assert_eq!(usage["total"]["requests"], count, "{by} {usage}");
                let sum: i64 = usage["groups"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|g| g["requests"].as_i64().unwrap())
                    .sum();
                assert_eq!(sum, count, "{by}");
            }
        }
        app.running.features.jobs.run_now("usage-rollup").await.unwrap();
    }
}

async fn partitions(app: &TestApp) -> Vec<Value> {
    app.rows("SELECT tableoid::regclass::text AS name FROM llm_requests ORDER BY started_at").await
}

#[tokio::test]
async fn days_have_partitions_that_are_made_ahead_and_dropped_when_they_are_old() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    let day = |days: i64| {
        let at = app.clock.now() + chrono::TimeDelta::days(days);
        json!({"name": format!("llm_requests_{}", at.format("%Y_%m_%d"))})
    };
    // Before there is a partition of the day, what comes is kept all the same.
    ask(&user, Op::Chat, GPT).await.expect(200);
    app.llm_requests(1).await;
    assert_eq!(partitions(&app).await, [json!({"name": "llm_requests_default"})]);
    let jobs = &app.running.features.jobs;
    assert_eq!(jobs.run_now("llm-partition-maintenance").await.unwrap().items_handled, 7);
    assert_eq!(jobs.run_now("llm-partition-maintenance").await.unwrap().items_handled, 0);
    let tomorrow = day(1);
    app.clock.advance(std::time::Duration::from_secs(24 * 3600));
    ask(&user, Op::Chat, GPT).await.expect(200);
    app.llm_requests(2).await;
    assert_eq!(partitions(&app).await, [json!({"name": "llm_requests_default"}), tomorrow.clone()]);
    // Nothing is too old yet; then the first day; then the second, partition and all.
    assert_eq!(jobs.run_now("llm-request-cleanup").await.unwrap().items_handled, 0);
    app.clock.advance(std::time::Duration::from_secs(90 * 24 * 3600 - 60));
    jobs.run_now("llm-request-cleanup").await.unwrap();
    assert_eq!(partitions(&app).await, [tomorrow]);
    app.clock.advance(std::time::Duration::from_secs(24 * 3600));
    jobs.run_now("llm-request-cleanup").await.unwrap();
    assert_eq!(partitions(&app).await, Vec::<Value>::new());
    // The sums by day stay.
    let usage = user.get("/api/llm/usage?group_by=day&from=2027-01-01&to=2027-02-01").await;
    let usage = usage.expect(200).json();
    assert_eq!(usage["groups"].as_array().unwrap().len(), 2, "{usage}");
    assert_eq!(usage["total"]["requests"], 2);
}
