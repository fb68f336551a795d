//! Prices that an organisation sets, and the list of models that shows them.

use loom_core::principal::OrgRole;
use loom_testkit::{Caller, TestApp, eventually};
use serde_json::{Value, json};

use super::{GPT, Op, ask};

async fn cost_of(app: &TestApp, caller: &Caller, model: &str) -> Value {
    let id = ask(caller, Op::Chat, model).await.expect(200);
    let id = id.header("x-loom-request-id").unwrap().to_owned();
    eventually(async || {
        let query = format!("SELECT cost_nanousd FROM llm_requests WHERE request_id = '{id}'");
        app.rows(&query).await.pop()
    })
    .await["cost_nanousd"]
        .take()
}

#[tokio::test]
async fn a_price_of_ones_own_holds_on_every_server_until_it_is_taken_away() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let other = app.user("b@example.com").await;
    let replica = app.replica().await;
    let there = user.at(&replica);
    let prices = format!("/api/orgs/{}/llm/prices", user.org);
    let until = async |cost: Value| {
        eventually(async || (cost_of(&app, &there, GPT).await == cost).then_some(())).await;
        assert_eq!(cost_of(&app, &user, GPT).await, cost);
    };
    let new =
        json!({"provider": "openai", "model": GPT, "input": 1, "output": 2, "cache_read": 0.5});
    let made = user.post(&prices, &new).await.expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert!(made.header("location").unwrap().ends_with(&id));
    // 500 × 1 + 40 × 2 + 400 × 0.5 + 100 × 1, which has no price of its own
    until(json!(880_000)).await;
    assert_eq!(cost_of(&app, &other, GPT).await, 2_400_000);
    // A dated name that has none of its own.
    assert_eq!(cost_of(&app, &user, "gpt-4o-2024-08-06").await, 880_000);
    user.post(&prices, &new).await.expect(409);

    let path = format!("{prices}/{id}");
    let changed = user.put(&path, &json!({"input": 0, "output": 0})).await.expect(200).json();
    assert_eq!((&changed["model"], &changed["cache_read"]), (&json!(GPT), &Value::Null));
    until(json!(0)).await;
    let listed = there.get(&prices).await.expect(200).json();
    assert_eq!(listed["prices"], json!([changed]));
    there.delete(&path).await.expect(204);
    until(json!(2_400_000)).await;
    there.delete(&path).await.expect(404);
    user.put(&path, &json!({"input": 0, "output": 0})).await.expect(404);
    let acts = app
        .rows("SELECT action, target FROM audit_log WHERE action LIKE 'llm_price.%' ORDER BY at");
    let acts: Vec<_> = acts.await.into_iter().map(|act| act["action"].clone()).collect();
    assert_eq!(acts, ["llm_price.create", "llm_price.change", "llm_price.delete"]);
    replica.shut_down().await;
}

#[tokio::test]
async fn a_model_that_no_table_knows_gets_a_price() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    assert_eq!(cost_of(&app, &user, "model-of-tomorrow").await, Value::Null);
    let new = json!({"provider": "openai", "model": "model-of-tomorrow", "input": 3, "output": 9});
    let prices = format!("/api/orgs/{}/llm/prices", user.org);
    user.post(&prices, &new).await.expect(201);
    // (500 + 400 + 100) × 3 + 40 × 9
    assert_eq!(cost_of(&app, &user, "model-of-tomorrow").await, 3_360_000);
}

#[tokio::test]
async fn what_is_no_price_is_refused_with_the_members_name() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let prices = format!("/api/orgs/{}/llm/prices", user.org);
    let good = json!({"provider": "openai", "model": "m", "input": 1, "output": 1});
    for (member, value) in [
        ("provider", json!("nobody")),
        ("model", json!("")),
        ("input", json!(-1)),
        ("output", json!(1e9)),
        ("cache_read", json!(-0.1)),
        ("web_searches", json!(1e6)),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        let answer = user.post(&prices, &bad).await.expect(422).json();
        assert_eq!(answer["errors"][0]["path"], member, "{answer}");
    }
    assert_eq!(user.get(&prices).await.expect(200).json()["prices"], json!([]));
}

#[tokio::test]
async fn members_see_prices_in_the_list_of_models_and_set_none() {
    let app = TestApp::start().await;
    let owner = app.user("a@example.com").await;
    let member = app.user("b@example.com").await;
    app.join(member.id, owner.org, OrgRole::Member).await;
    let prices = format!("/api/orgs/{}/llm/prices", owner.org);
    let new = json!({"provider": "openai", "model": GPT, "input": 1, "output": 2});
    member.post(&prices, &new).await.expect(403);
    member.get(&prices).await.expect(403);
    owner.post(&prices, &new).await.expect(201);
    let find = |models: Value, provider: &str, model: &str| {
        let all = models["models"].as_array().unwrap().clone();
        let of = |m: &&Value| m["provider"] == provider && m["model"] == model;
        all.iter().find(of).cloned().unwrap_or_else(|| panic!("{provider} {model}"))
    };
    let org = owner.org.to_string();
    let models = member.with("x-loom-org", &org).get("/api/llm/models").await.expect(200).json();
    let own = find(models.clone(), "openai", GPT);
    assert_eq!(own["price"], json!({"source": "organisation", "input": 1.0, "output": 2.0}));
    let opus = find(models.clone(), "anthropic", "claude-opus-5");
    assert_eq!((&opus["price"]["source"], &opus["price"]["input"]), (&json!("table"), &json!(5.0)));
    assert_eq!(
        (&opus["context_tokens"], &opus["max_output_tokens"]),
        (&json!(1_000_000), &json!(128_000))
    );
    assert!(opus["capabilities"].as_array().unwrap().contains(&json!("tools")), "{opus}");
    let long = find(models, "openai", "gpt-5.4");
    let rates = long["price"]["other"].as_array().unwrap();
    assert!(
        rates.iter().any(|r| r["above_input_tokens"] == 272_000 && r["input"] == 5.0),
        "{long}"
    );
    let elsewhere = member.get("/api/llm/models").await.expect(200).json();
    assert_eq!(find(elsewhere, "openai", GPT)["price"]["input"], 2.5);
}
