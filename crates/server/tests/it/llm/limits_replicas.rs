//! Limits and budgets over several servers.

use std::{collections::BTreeMap, time::Duration};

use loom_server::app::Running;
use loom_testkit::{Caller, Setup, TestApp, eventually};
use serde_json::json;
use tokio::{runtime::Runtime, task::JoinSet};

use super::{
    GPT, Op, ask, begin_stream,
    limits::{counted, estimate, limit, limits, spent, tight},
};

/// So many further servers, and a caller at each and at the first.
async fn replicas(app: &TestApp, caller: &Caller, further: usize) -> (Vec<Running>, Vec<Caller>) {
    let mut running = Vec::new();
    for _ in 0..further {
        running.push(app.replica().await);
    }
    let mut callers = vec![caller.clone()];
    callers.extend(running.iter().map(|server| caller.at(server)));
    (running, callers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_at_once_over_four_servers_spend_the_budget_and_no_more() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let budget = 100 * estimate();
    limit(&user, "organisation/all", json!({"usd_per_day": budget as f64 / 1e9})).await;
    let (running, callers) = replicas(&app, &user, 3).await;
    let mut asked = JoinSet::new();
    for n in 0..1000 {
        let caller = callers[n % 4].clone();
        asked.spawn(
            async move { (n % 4, caller.post("/v1/messages", &tight()).await.status.as_u16()) },
        );
    }
    let mut told: BTreeMap<(usize, u16), usize> = BTreeMap::new();
    for answer in asked.join_all().await {
        *told.entry(answer).or_default() += 1;
    }
    assert!(told.keys().all(|(_, status)| [200, 429].contains(status)), "{told:?}");
    let ok: usize = told.iter().filter(|((_, status), _)| *status == 200).map(|(_, n)| n).sum();
    assert!((99..=101).contains(&ok), "{told:?}");
    app.llm_requests(1000).await;
    let cost = spent(&app).await;
    assert!(cost <= budget + budget / 100, "{cost} of {budget}");
    assert_eq!(counted(&app).await, [cost]);
    for server in running {
        server.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_hold_over_four_servers() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    limit(&user, "organisation/all", json!({"requests_per_minute": 100})).await;
    let (running, callers) = replicas(&app, &user, 3).await;
    let mut asked = JoinSet::new();
    for n in 0..400 {
        let caller = callers[n % 4].clone();
        asked.spawn(async move { ask(&caller, Op::Chat, GPT).await.status.as_u16() });
    }
    let ok = asked.join_all().await.into_iter().filter(|status| *status == 200).count();
    assert!((99..=100).contains(&ok), "{ok}");
    for server in running {
        server.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_another_server_holds_idle_is_given_back_when_it_is_wanted() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    limit(&user, "organisation/all", json!({"concurrent": 1})).await;
    let (running, callers) = replicas(&app, &user, 2).await;
    // One after the other, as behind a balancer.
    for n in 0..12 {
        ask(&callers[n % 3], Op::Chat, GPT).await.expect(200);
    }
    let held = begin_stream(&callers[1], Op::Chat, "mock-paced-100").await;
    for caller in &callers {
        ask(caller, Op::Chat, GPT).await.expect(429);
    }
    drop(held);
    eventually(async || (ask(&callers[2], Op::Chat, GPT).await.status == 200).then_some(())).await;
    for server in running {
        server.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_changes_on_one_server_counts_on_the_other() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let (running, callers) = replicas(&app, &user, 1).await;
    limit(&user, "organisation/all", json!({"requests_per_minute": 1_000_000})).await;
    eventually(async || {
        let answer = ask(&callers[1], Op::Chat, GPT).await.expect(200);
        // Until it has heard of the limit, the provider's own passes.
        (answer.header("x-ratelimit-limit-requests") == Some("1000000")).then_some(())
    })
    .await;
    limit(&user, "organisation/all", json!({"requests_per_minute": 0})).await;
    ask(&callers[0], Op::Chat, GPT).await.expect(429);
    eventually(async || (ask(&callers[1], Op::Chat, GPT).await.status == 429).then_some(())).await;
    for server in running {
        server.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_server_held_comes_back_when_its_lease_ends_and_what_it_spent_stays_spent() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    let runtime = Runtime::new().unwrap();
    let dying =
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(app.replica())).join().unwrap());
    // Room for four.
    let budget = 4 * estimate() + 1;
    limit(&user, "organisation/all", json!({"usd_per_day": budget as f64 / 1e9})).await;
    let there = user.caller.at(&dying);
    eventually(async || {
        // Known there, too.
        let list = there.get(&format!("/api/orgs/{}/llm/limits", user.org)).await;
        (list.json()["limits"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    there.post("/v1/messages", &tight()).await.expect(200);
    app.llm_requests(1).await;
    // One more runs there when it dies.
    let mut hanging = tight();
    hanging["model"] = json!("claude-sonnet-4-5");
    app.mock.enqueue(loom_testkit::llm::Script::model("mock-hang"));
    let hangs = there.clone();
    let lost = tokio::spawn(async move {
        let request = hangs.request(http::Method::POST, "/v1/messages").json(&hanging);
        let _ = request.send().await;
    });
    app.mock.wait_for_request(2).await;
    // It is dead when nothing of it runs any more.
    std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_secs(10))).join().unwrap();
    lost.abort();
    // Of four, one was spent, and the dead holds one and some more.
    user.post("/v1/messages", &tight()).await.expect(200);
    user.post("/v1/messages", &tight()).await.expect(429);
    app.clock.advance(Duration::from_secs(61));
    user.post("/v1/messages", &tight()).await.expect(200);
    user.post("/v1/messages", &tight()).await.expect(200);
    user.post("/v1/messages", &tight()).await.expect(429);
    app.llm_requests(6).await;
    let cost = spent(&app).await;
    assert_eq!(counted(&app).await, [cost]);
    assert_eq!(limits(&user).await[0]["current"]["usd_today"], cost as f64 / 1e9);
    assert!(cost <= budget);
    std::mem::forget(dying);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_shuts_down_gives_its_shares_back_at_once() {
    let app = Setup::default().manual_clock().start().await;
    let user = app.user("a@example.com").await;
    let (mut running, callers) = replicas(&app, &user, 1).await;
    let budget = 2 * estimate() + 1;
    limit(&user, "organisation/all", json!({"usd_per_day": budget as f64 / 1e9})).await;
    eventually(async || {
        let answer = callers[1].post("/v1/messages", &tight()).await.expect(200);
        drop(answer);
        let rows = app.rows("SELECT 1 AS x FROM llm_limit_leases").await;
        (!rows.is_empty()).then_some(())
    })
    .await;
    running.pop().unwrap().shut_down().await;
    assert!(app.rows("SELECT 1 AS x FROM llm_limit_leases").await.is_empty());
    let cost = spent(&app).await;
    assert_eq!(counted(&app).await, [cost]);
}
