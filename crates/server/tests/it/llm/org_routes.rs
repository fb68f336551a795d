//! Routes: what an organisation calls its models.

use loom_core::principal::OrgRole;
use loom_testkit::{TestApp, User, eventually};
use serde_json::{Value, json};

use super::{GPT, Op, SONNET, ask};

fn path(user: &User, name: &str) -> String {
    format!("/api/orgs/{}/llm/routes/{name}", user.org)
}

fn to(provider: &str, model: &str) -> Value {
    json!({"targets": [{"provider": provider, "model": model}]})
}

#[tokio::test]
async fn a_route_is_made_listed_changed_and_deleted() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let list = format!("/api/orgs/{}/llm/routes", user.org);
    assert_eq!(user.get(&list).await.expect(200).json(), json!({"routes": []}));
    let made = user.put(&path(&user, "fast"), &to("openai", GPT)).await.expect(201).json();
    assert_eq!(made["name"], "fast");
    assert_eq!(made["enabled"], true);
    let milliseconds = "2026-11-23T00:42:22.361Z".len();
    assert_eq!(made["created_at"].as_str().unwrap().len(), milliseconds, "{made}");
    assert_eq!(
        made["targets"][0],
        json!({"provider": "openai", "model": GPT, "weight": 1, "priority": 0})
    );
    assert_eq!(user.get(&path(&user, "fast")).await.expect(200).json(), made);
    assert_eq!(user.get(&list).await.expect(200).json()["routes"], json!([made]));
    ask(&user, Op::Chat, "fast").await.expect(200);
    assert_eq!(app.mock.wait_for_request(1).await.json()["model"], GPT);

    let mut off = to("anthropic", SONNET);
    user.put(&path(&user, "fast"), &off).await.expect(200);
    ask(&user, Op::Messages, "fast").await.expect(200);
    assert_eq!(app.mock.wait_for_request(2).await.json()["model"], SONNET);
    off["enabled"] = json!(false);
    user.put(&path(&user, "fast"), &off).await.expect(200);
    // As if it were not there: a model's plain name.
    ask(&user, Op::Messages, "fast").await.expect(200);
    assert_eq!(app.mock.wait_for_request(3).await.json()["model"], "fast");

    user.delete(&path(&user, "fast")).await.expect(204);
    user.delete(&path(&user, "fast")).await.expect(404);
    user.get(&path(&user, "fast")).await.expect(404);
    let acts = app
        .rows("SELECT action, target FROM audit_log WHERE action LIKE 'llm_route.%' ORDER BY id")
        .await;
    let actions: Vec<_> = acts.iter().map(|act| act["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["llm_route.put", "llm_route.put", "llm_route.put", "llm_route.delete"]);
    assert!(acts.iter().all(|act| act["target"] == "fast"));
}

#[tokio::test]
async fn what_makes_no_route_is_a_422_with_every_fault() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let draft = json!({"targets": [
        {"provider": "nobody", "model": "", "weight": 0, "priority": 101},
        {"provider": "openai", "model": "x"}, {"provider": "openai", "model": "x"},
    ]});
    let told = user.put(&path(&user, "fast"), &draft).await.expect(422).json();
    let paths: Vec<_> = told["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "targets[0].provider",
            "targets[0].model",
            "targets[0].weight",
            "targets[0].priority",
            "targets[1].model",
            "targets[2].model",
        ]
    );
    user.put(&path(&user, "fast"), &json!({"targets": []})).await.expect(422);
    let many: Vec<_> =
        (0..21).map(|n| json!({"provider": "openai", "model": n.to_string()})).collect();
    user.put(&path(&user, "fast"), &json!({"targets": many})).await.expect(422);
    user.put(&path(&user, "a%2Fb"), &to("openai", GPT)).await.expect(422);
    user.put(&path(&user, &"x".repeat(101)), &to("openai", GPT)).await.expect(422);
    assert!(app.rows("SELECT 1 FROM llm_routes").await.is_empty());
}

#[tokio::test]
async fn an_organisation_has_up_to_a_hundred_routes() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    for n in 0..100 {
        user.put(&path(&user, &format!("r{n}")), &to("openai", GPT)).await.expect(201);
    }
    let refused = user.put(&path(&user, "one-more"), &to("openai", GPT)).await.expect(429);
    assert_eq!(refused.code(), "quota_exceeded");
    user.put(&path(&user, "r7"), &to("anthropic", SONNET)).await.expect(200);
}

#[tokio::test]
async fn a_route_is_its_organisations_alone_and_hides_a_model_of_its_name() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let stranger = app.user("b@example.com").await;
    user.put(&path(&user, GPT), &to("anthropic", SONNET)).await.expect(201);
    ask(&user, Op::Chat, GPT).await.expect(200);
    assert_eq!(app.mock.wait_for_request(1).await.json()["model"], SONNET);
    // Under its provider's name it is what it was, and for others anyway.
    ask(&user, Op::Chat, &format!("openai/{GPT}")).await.expect(200);
    ask(&stranger, Op::Chat, GPT).await.expect(200);
    assert_eq!(app.mock.wait_for_request(2).await.json()["model"], GPT);
    assert_eq!(app.mock.wait_for_request(3).await.json()["model"], GPT);
}

#[tokio::test]
async fn routes_are_in_the_lists_of_models_on_both_wires() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    user.put(&path(&user, "fast"), &to("openai", GPT)).await.expect(201);
    for caller in [user.caller.clone(), user.with("anthropic-version", "2023-06-01")] {
        let list = caller.get("/v1/models").await.expect(200).json();
        let ids: Vec<_> =
            list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
        assert!(ids.contains(&json!("fast")), "{ids:?}");
        let one = caller.get("/v1/models/fast").await.expect(200).json();
        assert_eq!(one["id"], "fast");
        assert!(list["data"].as_array().unwrap().contains(&one), "{list}");
    }
    let stranger = app.user("b@example.com").await;
    assert!(!stranger.get("/v1/models").await.expect(200).text.contains("fast"));
}

#[tokio::test]
async fn targets_have_their_shares_by_weight() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let route = json!({"targets": [
        {"provider": "openai", "model": "a", "weight": 3}, {"provider": "openai", "model": "b"},
        {"provider": "openai", "model": "spare", "priority": 1, "weight": 1000},
    ]});
    user.put(&path(&user, "mixed"), &route).await.expect(201);
    for _ in 0..8 {
        ask(&user, Op::Chat, "mixed").await.expect(200);
    }
    let models: Vec<_> =
        app.mock.requests().iter().map(|request| request.json()["model"].clone()).collect();
    let count = |name| models.iter().filter(|model| **model == name).count();
    assert_eq!((count("a"), count("b")), (6, 2), "{models:?}");
}

#[tokio::test]
async fn a_route_changes_on_every_replica() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    let replica = app.replica().await;
    let there = user.at(&replica);
    user.put(&path(&user, "fast"), &to("openai", GPT)).await.expect(201);
    let asked = async |model: &str| {
        app.mock.clear();
        there.post(Op::Chat.path(), &Op::Chat.body("fast")).await.expect(200);
        (app.mock.wait_for_request(1).await.json()["model"] == model).then_some(())
    };
    eventually(async || asked(GPT).await).await;
    user.put(&path(&user, "fast"), &to("openai", "gpt-5")).await.expect(200);
    eventually(async || asked("gpt-5").await).await;
    user.delete(&path(&user, "fast")).await.expect(204);
    eventually(async || asked("fast").await).await;
    replica.shut_down().await;
}

#[tokio::test]
async fn members_may_look_and_admins_may_change() {
    let app = TestApp::start().await;
    let owner = app.user("a@example.com").await;
    let member = app.user("b@example.com").await;
    app.join(member.id, owner.org, OrgRole::Member).await;
    owner.put(&path(&owner, "fast"), &to("openai", GPT)).await.expect(201);
    member.get(&path(&owner, "fast")).await.expect(200);
    member.put(&path(&owner, "fast"), &to("openai", "x")).await.expect(403);
    member.delete(&path(&owner, "fast")).await.expect(403);
}
