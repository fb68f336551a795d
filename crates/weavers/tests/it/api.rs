//! Weavers over HTTP: made, refused, found, changed, ended; whom they belong to and what they spend.

use loom_core::principal::{OrgRole, Scope};
use loom_testkit::{
    Answer, Caller, Setup, TestApp, User, eventually,
    kubernetes::FakeKubernetes,
    webhook::{Call, WebhookReceiver},
};
use serde_json::{Value, json};

const IMAGE: &str = "fake/runs";

async fn start(cluster: &FakeKubernetes) -> (TestApp, User) {
    let app = Setup::default().weavers(cluster).start().await;
    let ada = app.user("ada@example.com").await;
    (app, ada)
}

async fn make(caller: &Caller, more: Value) -> Value {
    let mut body = json!({"image": IMAGE});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    caller.post("/api/weaver", &body).await.expect(201).json()
}

fn id(weaver: &Value) -> String {
    weaver["id"].as_str().unwrap().to_owned()
}

fn env_of<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    env.iter().find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

fn secret_of(cluster: &FakeKubernetes, weaver: &Value, key: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let secrets = cluster.objects("secrets");
    let secret = secrets
        .iter()
        .find(|secret| secret["metadata"]["name"] == weaver["pod_name"])
        .expect("a secret under the name of the pod");
    String::from_utf8(STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap()).unwrap()
}

/// What an agent inside has: the server's URL and its token.
fn inside(app: &TestApp, cluster: &FakeKubernetes, weaver: &Value) -> Caller {
    app.anonymous().with_key(&secret_of(cluster, weaver, "loom-token"))
}

#[tokio::test]
async fn a_weaver_is_made_runs_and_is_deleted_and_its_record_stays() {
    let cluster = FakeKubernetes::start();
    let (_app, ada) = start(&cluster).await;
    let body = json!({"image": IMAGE, "tags": {"task": "7"}, "env": {"MODE": "fast"}, "lifetime_hours": 2});
    let answer = ada.post("/api/weaver", &body).await.expect(201);
    let made = answer.json();
    assert_eq!(answer.header("location"), Some(format!("/api/weaver/{}", id(&made)).as_str()));
    assert_eq!(made["status"], "running");
    assert_eq!(made["owner_user_id"], json!(ada.id));
    assert_eq!(made["env"], json!({"MODE": "fast"}));
    assert_eq!(
        made["resources"],
        json!({"cpu": "2", "memory": "16Gi", "ephemeral_storage": "10Gi"})
    );
    assert_eq!(made["lifetime_hours"], 2.0);
    assert_eq!(made["network"], "internet");
    assert!(cluster.pod(made["pod_name"].as_str().unwrap()).is_some());
    let path = format!("/api/weaver/{}", id(&made));
    ada.delete(&path).await.expect(204);
    ada.delete(&path).await.expect(204);
    let gone = eventually(async || {
        let now = ada.get(&path).await.expect(200).json();
        (now["status"] == "deleted").then_some(now)
    })
    .await;
    assert_eq!(gone["reason_code"], "deleted");
    assert!(cluster.pods().is_empty());
    let timeline = ada.get(&format!("{path}/timeline")).await.expect(200).json();
    let phases: Vec<&str> = timeline["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases.first(), Some(&"queued"), "{timeline}");
    assert!(phases.contains(&"started") && phases.contains(&"ended"), "{timeline}");
}

#[tokio::test]
async fn without_waiting_it_is_pending_and_the_same_key_makes_one() {
    let cluster = FakeKubernetes::start();
    let (app, ada) = start(&cluster).await;
    let body = json!({"image": IMAGE, "wait": false});
    let keyed = ada.with("idempotency-key", "once");
    let (first, second) =
        tokio::join!(keyed.post("/api/weaver", &body), keyed.post("/api/weaver", &body));
    let (first, second) = (first.expect(202).json(), second.expect(202).json());
    assert_eq!(first["id"], second["id"]);
    let other = json!({"image": "fake/other", "wait": false});
    assert_eq!(
        keyed.post("/api/weaver", &other).await.expect(422).code(),
        "idempotency_key_reused"
    );
    let eve = app.user("eve@example.com").await;
    app.join(eve.id, ada.org, OrgRole::Member).await;
    let eve = eve.with("x-loom-org", &ada.org.to_string()).with("idempotency-key", "once");
    assert_ne!(eve.post("/api/weaver", &body).await.expect(202).json()["id"], first["id"]);
    assert_eq!(app.rows("SELECT id FROM weavers").await.len(), 2);
    let long = "k".repeat(256);
    let refused = ada.with("idempotency-key", &long).post("/api/weaver", &body).await;
    assert_eq!(refused.expect(400).code(), "invalid_idempotency_key");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let cluster = FakeKubernetes::start();
    let (app, ada) = start(&cluster).await;
    let env: serde_json::Map<String, Value> =
        (0..1000).map(|n| (format!("V{n}"), json!("x"))).collect();
    let tags: serde_json::Map<String, Value> =
        (0..51).map(|n| (format!("t{n}"), json!("x"))).collect();
    let with = |name: &str, value: Value| {
        let mut body = json!({"image": IMAGE});
        body[name] = value;
        body
    };
    for (body, code) in [
        (json!({}), "invalid_request"),
        (with("image", json!("a;rm -rf /")), "invalid_image"),
        (with("image", json!("$(id)")), "invalid_image"),
        (with("image", json!("a b")), "invalid_image"),
        (with("image", json!("x".repeat(600))), "invalid_image"),
        (with("command", json!("sh -c id")), "invalid_request"),
        (with("command", json!(vec!["x"; 300])), "invalid_request"),
        (with("args", json!(["x".repeat(70_000)])), "invalid_request"),
        (with("env", Value::Object(env)), "invalid_request"),
        (with("env", json!({"A-B": "x"})), "invalid_request"),
        (with("env", json!({"1A": "x"})), "invalid_request"),
        (with("env", json!({"": "x"})), "invalid_request"),
        (with("env", json!({"LOOM_SERVER_URL": "http://evil"})), "invalid_request"),
        (with("env", json!({"A": "x".repeat(40_000)})), "invalid_request"),
        (with("env", json!({"A": 1})), "invalid_request"),
        (with("env", json!({"A": "x\u{0}y"})), "invalid_request"),
        (with("tags", json!({"loom.dev/owner-user-id": "x"})), "invalid_request"),
        (with("tags", json!({"LOOM.dev/managed": "true"})), "invalid_request"),
        (with("tags", json!({"a:b": "x"})), "invalid_request"),
        (with("tags", json!({"a": "x\ny"})), "invalid_request"),
        (with("tags", Value::Object(tags)), "invalid_request"),
        (with("lifetime_hours", json!(-1)), "invalid_lifetime"),
        (with("lifetime_hours", json!(0)), "invalid_lifetime"),
        (with("lifetime_hours", json!(49)), "invalid_lifetime"),
        (with("lifetime_hours", json!(1e300)), "invalid_lifetime"),
        (with("workdir", json!("relative")), "invalid_request"),
        (with("workdir", json!("/a/../etc")), "invalid_request"),
        (with("repo", json!("git@github.com:a/b")), "invalid_request"),
        (with("repo", json!("https://u:p@github.com/a/b")), "invalid_request"),
        (with("repo", json!("--upload-pack=id")), "invalid_request"),
        (with("branch", json!("main")), "invalid_request"),
        (json!({"image": IMAGE, "repo": "https://h/a", "branch": "-x"}), "invalid_request"),
        (with("resources", json!({"cpu": "-1"})), "invalid_request"),
        (with("resources", json!({"memory": "lots"})), "invalid_request"),
        (with("resources", json!({"memory": "9Pi"})), "invalid_request"),
        (with("network", json!("everything")), "invalid_request"),
        (with("budget_usd", json!(-0.1)), "invalid_request"),
        (with("idle_timeout_secs", json!(1)), "invalid_request"),
        (with("scopes", json!(["admin:write"])), "invalid_request"),
        (with("scopes", json!(["weavers:write"])), "invalid_request"),
    ] {
        let answer = ada.post("/api/weaver", &body).await;
        let shown: String = body.to_string().chars().take(120).collect();
        assert_eq!(answer.status.as_u16(), 422, "{shown}: {}", answer.text);
        assert_eq!(answer.code(), code, "{shown}: {}", answer.text);
    }
    ada.post("/api/weaver", &with("org_id", json!("nobody"))).await.expect(404);
    assert!(app.rows("SELECT id FROM weavers").await.is_empty());
    assert_eq!(cluster.count("create", "pods"), 0);
}

#[tokio::test]
async fn only_listed_images_run() {
    let cluster = FakeKubernetes::start();
    let setup = Setup::default()
        .weavers(&cluster)
        .set("LOOM_SERVER_WEAVER_IMAGES", "fake/,ghcr.io/acme/agent:1");
    let app = setup.start().await;
    let ada = app.user("ada@example.com").await;
    make(&ada, json!({})).await;
    for image in ["evil/miner", "ghcr.io/acme/agent:2", "fake.example.com/a", "fakery/a"] {
        let answer = ada.post("/api/weaver", &json!({"image": image})).await;
        assert_eq!(answer.expect(422).code(), "invalid_image", "{image}");
    }
}

#[tokio::test]
async fn secrets_are_sealed_and_reach_the_pod_by_its_secret_alone() {
    let cluster = FakeKubernetes::start();
    let (app, ada) = start(&cluster).await;
    let by_name = "correct horse battery";
    let by_shape = format!("ghp_{}", "a1B2".repeat(9));
    let env = json!({"DB_PASSWORD": by_name, "SOMETHING": by_shape, "MODE": "fast", "OPENAI_API_KEY": "sk-mine-000"});
    let made = make(&ada, json!({"env": env})).await;
    assert_eq!(made["env"], json!({"MODE": "fast"}));
    assert_eq!(made["sealed_env"], json!(["DB_PASSWORD", "OPENAI_API_KEY", "SOMETHING"]));
    assert_eq!(secret_of(&cluster, &made, "DB_PASSWORD"), by_name);
    assert_eq!(secret_of(&cluster, &made, "SOMETHING"), by_shape);
    let pod = cluster.pod(made["pod_name"].as_str().unwrap()).unwrap();
    let from = &env_of(&pod, "DB_PASSWORD")["valueFrom"]["secretKeyRef"];
    assert_eq!(from["name"], made["pod_name"]);
    assert_eq!(env_of(&pod, "LOOM_WEAVER_ID")["value"], made["id"]);
    let url = app.url().replace("127.0.0.1", "localhost");
    assert_eq!(env_of(&pod, "LOOM_SERVER_URL")["value"], json!(url));
    assert_eq!(env_of(&pod, "ANTHROPIC_BASE_URL")["value"], json!(url));
    assert_eq!(env_of(&pod, "ANTHROPIC_API_KEY")["valueFrom"]["secretKeyRef"]["key"], "loom-token");
    // Their own key goes to the vendor, not to us.
    assert_eq!(*env_of(&pod, "OPENAI_BASE_URL"), Value::Null);
    let rows = app.rows("SELECT * FROM weavers").await;
    let said = format!("{pod} {} {}", json!(rows), made);
    for secret in [by_name, by_shape.as_str(), &secret_of(&cluster, &made, "loom-token")] {
        assert!(!said.contains(secret), "{secret} lies open");
    }
}

#[tokio::test]
async fn the_token_of_a_private_repository_is_for_its_server_and_for_the_clone_alone() {
    let cluster = FakeKubernetes::start();
    let (app, ada) = start(&cluster).await;
    let token = "correct-horse-battery-staple";
    let made = make(
        &ada,
        json!({"repo": "https://git.example.com/acme/app", "branch": "main", "repo_token": token}),
    )
    .await;
    let pod = cluster.pod(made["pod_name"].as_str().unwrap()).unwrap();
    let clone = &pod["spec"]["initContainers"][0];
    let env = clone["env"].as_array().unwrap();
    let of = |name: &str| env.iter().find(|one| one["name"] == name).unwrap_or(&Value::Null);
    assert_eq!(of("GIT_CONFIG_KEY_0")["value"], "http.https://git.example.com/.extraHeader");
    assert_eq!(of("REPO_AUTHORIZATION")["valueFrom"]["secretKeyRef"]["key"], "loom-repo-token");
    let header = secret_of(&cluster, &made, "loom-repo-token");
    assert_eq!(header, "Basic eC1hY2Nlc3MtdG9rZW46Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==");
    let agent = pod["spec"]["containers"][0].to_string();
    assert!(!agent.contains("loom-repo-token") && !agent.contains("AUTHORIZATION"), "{agent}");
    let rows = app.rows("SELECT * FROM weavers").await;
    assert!(!format!("{made} {pod} {}", json!(rows)).contains(token));
}

#[tokio::test]
async fn quotas_say_what_is_used() {
    let cluster = FakeKubernetes::start();
    let setup = Setup::default()
        .weavers(&cluster)
        .set("LOOM_SERVER_WEAVER_MAX_PER_USER", "2")
        .set("LOOM_SERVER_WEAVER_MAX_PER_ORG", "3")
        .set("LOOM_SERVER_WEAVER_MAX_CONCURRENT", "4")
        .set("LOOM_SERVER_WEAVER_MAX_MEMORY_GIB", "40");
    let app = setup.start().await;
    let ada = app.user("ada@example.com").await;
    let grace = app.user("grace@example.com").await;
    app.join(grace.id, ada.org, OrgRole::Member).await;
    let in_team = grace.with("x-loom-org", &ada.org.to_string());
    let full = async |caller: &Caller, body: Value| -> Value {
        let answer: Answer = caller.post("/api/weaver", &body).await.expect(429);
        assert_eq!(answer.code(), "too_many_weavers");
        assert!(answer.header("retry-after").is_some());
        answer.json()
    };
    let body = json!({"image": IMAGE, "wait": false});
    let small = json!({"image": IMAGE, "wait": false, "resources": {"memory": "1Gi"}});
    // The places are counted before any of them is taken.
    let burst = futures::future::join_all((0..6).map(|_| ada.post("/api/weaver", &body))).await;
    assert_eq!(burst.iter().filter(|answer| answer.status == 202).count(), 2);
    let of_user = full(&ada, body.clone()).await;
    assert_eq!((&of_user["used"], &of_user["limit"]), (&json!("2"), &json!("2")));
    // Another organisation does not give a user more.
    app.join(ada.id, grace.org, OrgRole::Member).await;
    let elsewhere = ada.with("x-loom-org", &grace.org.to_string());
    assert_eq!(full(&elsewhere, small.clone()).await["quota"], "weavers of this user");
    let memory = full(&in_team, body.clone()).await;
    assert_eq!((&memory["used"], &memory["limit"]), (&json!("32Gi"), &json!("40Gi")));
    in_team.post("/api/weaver", &small).await.expect(202);
    assert_eq!(full(&in_team, small.clone()).await["quota"], "weavers of this organisation");
    grace.post("/api/weaver", &small).await.expect(202);
    assert_eq!(full(&grace, small).await["quota"], "weavers of this installation");
    // What is over takes no place.
    let mine = ada.get("/api/weavers?status=pending,running").await.expect(200).json();
    ada.delete(&format!("/api/weaver/{}", id(mine["weavers"].as_array().unwrap().last().unwrap())))
        .await
        .expect(204);
    eventually(async || (ada.post("/api/weaver", &body).await.status == 202).then_some(())).await;
}

#[tokio::test]
async fn lists_show_ones_own_and_admins_all_by_tag_and_status() {
    let cluster = FakeKubernetes::start();
    let (app, ada) = start(&cluster).await;
    let grace = app.user("grace@example.com").await;
    app.join(grace.id, ada.org, OrgRole::Member).await;
    let in_team = grace.with("x-loom-org", &ada.org.to_string());
    let one = make(&ada, json!({"tags": {"task": "1", "kind": "review"}})).await;
    let two = make(&in_team, json!({"tags": {"task": "2", "kind": "review"}})).await;
    let ids = |page: &Value| -> Vec<Value> {
        page["weavers"].as_array().unwrap().iter().map(|weaver| weaver["id"].clone()).collect()
    };
    for (caller, query, found) in [
        (&ada.caller, "", vec![&two, &one]),
        (&in_team, "", vec![&two]),
        (&ada.caller, "?tag=kind:review", vec![&two, &one]),
        (&ada.caller, "?tag=kind:review&tag=task:1", vec![&one]),
        (&ada.caller, "?tag=kind%3Areview&tag=task:3", vec![]),
        (&ada.caller, "?status=running", vec![&two, &one]),
        (&ada.caller, "?status=failed&status=pending", vec![]),
        (&ada.caller, "?tag=task:2&status=running", vec![&two]),
    ] {
        let page = caller.get(&format!("/api/weavers{query}")).await.expect(200).json();
        assert_eq!(
            ids(&page),
            found.iter().map(|w| w["id"].clone()).collect::<Vec<_>>(),
            "{query}"
        );
    }
    let first = ada.get("/api/weavers?limit=1").await.expect(200).json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let next = ada.get(&format!("/api/weavers?limit=1&cursor={cursor}")).await.expect(200).json();
    assert_eq!((ids(&first), ids(&next)), (vec![two["id"].clone()], vec![one["id"].clone()]));
    for bad in ["?tag=novalue", "?status=gone", "?limit=0", "?limit=1000000000"] {
        let answer = ada.get(&format!("/api/weavers{bad}")).await;
        assert!([400, 422].contains(&answer.status.as_u16()), "{bad}: {}", answer.text);
    }
    // A member neither sees nor touches what is another's; an admin may.
    let path = format!("/api/weaver/{}", id(&one));
    assert_eq!(in_team.get(&path).await.expect(404).code(), "weaver_not_found");
    in_team.delete(&path).await.expect(404);
    in_team.patch(&path, &json!({"tags": {}})).await.expect(404);
    ada.patch(&format!("/api/weaver/{}", id(&two)), &json!({"tags": {"seen": "yes"}}))
        .await
        .expect(200);
    assert_eq!(
        in_team.get(&format!("/api/weaver/{}", id(&two))).await.json()["tags"],
        json!({"seen": "yes"})
    );
}

#[tokio::test]
async fn tags_lifetime_and_network_change_while_it_runs() {
    let cluster = FakeKubernetes::start();
    let (_app, ada) = start(&cluster).await;
    let made = make(&ada, json!({"lifetime_hours": 1})).await;
    let path = format!("/api/weaver/{}", id(&made));
    let name = made["pod_name"].as_str().unwrap();
    let label =
        |pod: &Value| pod["metadata"]["labels"]["loom.dev/network"].as_str().unwrap().to_owned();
    assert!(label(&cluster.pod(name).unwrap()).starts_with("internet."));
    let change = json!({"lifetime_hours": 3, "network": "off", "tags": {"a": "b"}});
    let changed = ada.patch(&path, &change).await.expect(200).json();
    assert_eq!((&changed["lifetime_hours"], &changed["network"]), (&json!(3.0), &json!("off")));
    assert_ne!(changed["expires_at"], made["expires_at"]);
    assert!(label(&cluster.pod(name).unwrap()).starts_with("off."));
    for (bad, code) in [
        (json!({"lifetime_hours": 49}), "invalid_lifetime"),
        (json!({"lifetime_hours": -1}), "invalid_lifetime"),
        (json!({"tags": {"loom.dev/x": "y"}}), "invalid_request"),
        (json!({"network": "all"}), "invalid_request"),
    ] {
        assert_eq!(ada.patch(&path, &bad).await.expect(422).code(), code, "{bad}");
    }
    ada.delete(&path).await.expect(204);
    let late = ada.patch(&path, &json!({"lifetime_hours": 4})).await.expect(409);
    assert_eq!(late.code(), "weaver_ended");
    ada.patch(&path, &json!({"tags": {"kept": "yes"}})).await.expect(200);
}

#[tokio::test]
async fn policies_are_there_before_a_pod_is_and_each_class_has_its_own() {
    let cluster = FakeKubernetes::start();
    let (_app, ada) = start(&cluster).await;
    let made = make(&ada, json!({})).await;
    let asked = cluster.requests();
    let first = |verb: &str, resource: &str| {
        asked.iter().position(|one| one.verb == verb && one.resource == resource)
    };
    assert!(first("patch", "networkpolicies") < first("create", "pods"));
    let policies = cluster.objects("networkpolicies");
    assert_eq!(policies.len(), 4);
    let pod = cluster.pod(made["pod_name"].as_str().unwrap()).unwrap();
    let label = &pod["metadata"]["labels"]["loom.dev/network"];
    let that = |what: &str| {
        let named = |policy: &&Value| {
            policy["metadata"]["name"].as_str().unwrap().starts_with(&format!("loom-{what}-"))
        };
        policies.iter().find(named).unwrap()["spec"].clone()
    };
    let chooses = |spec: &Value| {
        let values = &spec["podSelector"]["matchExpressions"][0]["values"];
        values.as_array().unwrap().contains(label)
    };
    assert!(chooses(&that("deny")) && chooses(&that("internet")));
    assert!(!chooses(&that("loom-only")) && !chooses(&that("open")));
    assert_eq!(that("deny")["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(that("deny")["egress"], Value::Null);
    let internet = that("internet").to_string();
    for range in [
        "10.0.0.0/8",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "192.168.0.0/16",
        "172.16.0.0/12",
        "fc00::/7",
    ] {
        assert!(internet.contains(range), "{range}");
    }
}

#[tokio::test]
async fn a_weaver_acts_as_itself_and_its_token_ends_with_it() {
    let cluster = FakeKubernetes::start();
    let (app, ada) = start(&cluster).await;
    let (one, two) = (make(&ada, json!({})).await, make(&ada, json!({})).await);
    let agent = inside(&app, &cluster, &one);
    agent.get(&format!("/api/weaver/{}", id(&one))).await.expect(200);
    agent.get(&format!("/api/weaver/{}", id(&two))).await.expect(404);
    let page = agent.get("/api/weavers").await.expect(200).json();
    assert_eq!(page["weavers"].as_array().unwrap().len(), 1);
    agent.post("/api/weaver", &json!({"image": IMAGE})).await.expect(403);
    agent.delete(&format!("/api/weaver/{}", id(&one))).await.expect(403);
    agent.get(&format!("/api/orgs/{}/api-keys", ada.org)).await.expect(403);
    ada.delete(&format!("/api/weaver/{}", id(&one))).await.expect(204);
    eventually(async || (agent.get("/auth/me").await.status == 401).then_some(())).await;
    // One whose maker may little gives no more than that.
    let poor = app.with_scopes(&ada, &[Scope::WeaversRead, Scope::WeaversWrite]).await;
    let third = make(&poor, json!({})).await;
    assert_eq!(third["scopes"], json!(["weavers:read"]));
    let refused = poor.post("/api/weaver", &json!({"image": IMAGE, "scopes": ["llm:use"]})).await;
    refused.expect(422);
    let chat = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]});
    inside(&app, &cluster, &third).post("/v1/chat/completions", &chat).await.expect(403);
}

fn chat() -> Value {
    json!({"model": "gpt-4o", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test]
async fn what_an_agent_asks_of_models_is_accounted_to_its_weaver_and_the_budget_ends_it() {
    let cluster = FakeKubernetes::start();
    let (app, ada) = start(&cluster).await;
    let made = make(&ada, json!({"budget_usd": 0.000_001, "idle_timeout_secs": 600})).await;
    let path = format!("/api/weaver/{}", id(&made));
    let agent = inside(&app, &cluster, &made);
    // The last of a budget is spent too.
    agent.post("/v1/chat/completions", &chat()).await.expect(200);
    let row = &app.llm_requests(1).await[0];
    assert_eq!((&row["weaver_id"], &row["user_id"]), (&made["id"], &Value::Null));
    let now = ada.get(&path).await.expect(200).json();
    assert!(now["llm_cost_usd"].as_f64().unwrap() > 0.000_001, "{now}");
    let refused = agent.post("/v1/chat/completions", &chat()).await.expect(429);
    assert!(refused.text.contains("of this weaver"), "{}", refused.text);
    app.running.features.jobs.run_now("weaver-spending").await.unwrap();
    let ended = eventually(async || {
        let now = ada.get(&path).await.expect(200).json();
        (now["status"] == "failed").then_some(now)
    })
    .await;
    assert_eq!(ended["reason_code"], "budget");
    assert!(cluster.pods().is_empty());
}

#[tokio::test]
async fn nobody_puts_a_request_on_the_account_of_anothers_weaver() {
    let cluster = FakeKubernetes::start();
    let (app, ada) = start(&cluster).await;
    let eve = app.user("eve@example.com").await;
    app.join(eve.id, ada.org, OrgRole::Admin).await;
    let (one, two) = (make(&ada, json!({})).await, make(&ada, json!({})).await);
    let named = |caller: &Caller, weaver: &Value| caller.with("x-loom-weaver-id", &id(weaver));
    named(&ada, &one).post("/v1/chat/completions", &chat()).await.expect(200);
    let in_team = eve.with("x-loom-org", &ada.org.to_string());
    let agent = inside(&app, &cluster, &two);
    for caller in [&in_team, &eve.caller, &agent] {
        named(caller, &one).post("/v1/chat/completions", &chat()).await.expect(403);
    }
    named(&agent, &two).post("/v1/chat/completions", &chat()).await.expect(200);
    let rows = app.llm_requests(2).await;
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["weaver_id"], &rows[1]["weaver_id"]), (&one["id"], &two["id"]));
}

#[tokio::test]
async fn a_request_to_a_model_is_a_sign_of_life() {
    let cluster = FakeKubernetes::start();
    let app = Setup::default().weavers(&cluster).manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    let made = make(&ada, json!({"idle_timeout_secs": 600})).await;
    let agent = inside(&app, &cluster, &made);
    let path = format!("/api/weaver/{}", id(&made));
    app.clock.advance(std::time::Duration::from_secs(500));
    agent.post("/v1/chat/completions", &chat()).await.expect(200);
    app.llm_requests(1).await;
    let jobs = &app.running.features.jobs;
    jobs.run_now("weaver-spending").await.unwrap();
    app.clock.advance(std::time::Duration::from_secs(500));
    jobs.run_now("weaver-cleanup").await.unwrap();
    assert_eq!(ada.get(&path).await.json()["status"], "running");
    app.clock.advance(std::time::Duration::from_secs(101));
    jobs.run_now("weaver-cleanup").await.unwrap();
    eventually(async || {
        let now = ada.get(&path).await.expect(200).json();
        (now["status"] == "expired").then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_waits_is_told_why_it_does_not_run() {
    let cluster = FakeKubernetes::start();
    let setup =
        Setup::default().weavers(&cluster).set("LOOM_SERVER_WEAVER_READY_TIMEOUT_SECS", "2");
    let app = setup.start().await;
    let ada = app.user("ada@example.com").await;
    let failed = ada.post("/api/weaver", &json!({"image": "fake/no-image"})).await.expect(502);
    assert_eq!(failed.code(), "weaver_failed");
    assert!(failed.json()["weaver_id"].is_string());
    let late = ada.post("/api/weaver", &json!({"image": "fake/unschedulable"})).await.expect(504);
    assert_eq!(late.code(), "weaver_timeout");
    let path = format!("/api/weaver/{}", late.json()["weaver_id"].as_str().unwrap());
    let ended = eventually(async || {
        let now = ada.get(&path).await.expect(200).json();
        (now["status"] == "failed").then_some(now)
    })
    .await;
    assert_eq!(ended["reason_code"], "ready_timeout");
    assert!(cluster.pods().is_empty());
}

#[tokio::test]
async fn watchers_hear_of_what_they_may_see_on_any_server() {
    let cluster = FakeKubernetes::start();
    let (app, ada) = start(&cluster).await;
    let eve = app.user("eve@example.com").await;
    app.join(eve.id, ada.org, OrgRole::Member).await;
    let replica = app.replica().await;
    let watch = async |caller: &Caller| {
        let request = caller.request(reqwest::Method::GET, "/api/weavers/stream");
        request.send().await.unwrap().error_for_status().unwrap()
    };
    let mut hers = watch(&ada.at(&replica)).await;
    let mut others = watch(&eve.with("x-loom-org", &ada.org.to_string())).await;
    let made = make(&ada, json!({})).await;
    let mut heard = String::new();
    while !(heard.contains(&id(&made)) && heard.contains("\"running\"")) {
        heard.push_str(&String::from_utf8_lossy(&hers.chunk().await.unwrap().unwrap()));
    }
    assert!(heard.starts_with("event: init\n"), "{heard}");
    // Eve's next event is of her own weaver: of Ada's she heard nothing.
    let own = make(&eve.with("x-loom-org", &ada.org.to_string()), json!({})).await;
    let mut told = String::new();
    while !told.contains(&id(&own)) {
        told.push_str(&String::from_utf8_lossy(&others.chunk().await.unwrap().unwrap()));
    }
    assert!(!told.contains(&id(&made)), "{told}");
}

#[tokio::test]
async fn webhooks_hear_of_a_weaver_from_its_making_to_its_end() {
    let cluster = FakeKubernetes::start();
    let receiver = WebhookReceiver::start();
    let setup = Setup::default().set("LOOM_SERVER_OUTBOUND_ALLOW", "127.0.0.0/8");
    let app = setup.weavers(&cluster).manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    let admin = app.admin("root@example.com").await;
    let kinds = ["created", "ready", "expiring", "deleted", "failed"];
    let kinds = kinds.map(|kind| format!("weaver.{kind}"));
    let hook = json!({"name": "ops", "url": receiver.url("/hook"), "kinds": kinds});
    admin.post("/api/admin/webhooks", &hook).await.expect(201);
    // What came about a weaver, once it is these kinds.
    let told = async |weaver: &Value, kinds: &[&str]| {
        eventually(async || {
            let mut came: Vec<Value> = receiver.calls().iter().map(Call::json).collect();
            came.retain(|call| call["data"]["weaver"]["id"] == weaver["id"]);
            // Two that are sent at the same time come in either order.
            kinds
                .iter()
                .map(|kind| came.iter().find(|call| call["type"] == *kind).cloned())
                .collect::<Option<Vec<Value>>>()
                .filter(|all| all.len() == came.len())
        })
        .await
    };
    let ready = async |weaver: &Value| {
        let path = format!("/api/weaver/{}", id(weaver));
        eventually(async || (!ada.get(&path).await.json()["ready_at"].is_null()).then_some(()))
            .await;
        path
    };
    let short = make(&ada, json!({"lifetime_hours": 1})).await;
    let long = make(&ada, json!({})).await;
    ready(&short).await;
    ada.delete(&ready(&long).await).await.expect(204);
    let gone = told(&long, &["weaver.created", "weaver.ready", "weaver.deleted"]).await;
    assert_eq!(gone[2]["data"]["weaver"]["reason_code"], "deleted");
    app.clock.advance(std::time::Duration::from_secs(55 * 60 + 1));
    let soon = told(&short, &["weaver.created", "weaver.ready", "weaver.expiring"]).await;
    let weaver = &soon[2]["data"]["weaver"];
    assert_eq!(
        (&weaver["expires_at"], &weaver["status"]),
        (&short["expires_at"], &json!("running"))
    );
    cluster.exit(short["pod_name"].as_str().unwrap(), 3);
    let kinds = ["weaver.created", "weaver.ready", "weaver.expiring", "weaver.failed"];
    let failed = &told(&short, &kinds).await[3]["data"]["weaver"];
    assert_eq!((&failed["reason_code"], &failed["exit_code"]), (&json!("crashed"), &json!(3)));
}

#[tokio::test]
async fn only_system_admins_clean_up() {
    let cluster = FakeKubernetes::start();
    let app = Setup::default().weavers(&cluster).manual_clock().start().await;
    let ada = app.user("ada@example.com").await;
    let made = make(&ada, json!({"lifetime_hours": 1})).await;
    make(&ada, json!({"lifetime_hours": 2})).await;
    // Who watches the cluster sees what is due too, and could be faster.
    app.running.features.weavers.close().await;
    app.clock.advance(std::time::Duration::from_secs(3660));
    ada.post("/api/weavers/cleanup", &json!({})).await.expect(403);
    let admin = app.admin("root@example.com").await;
    let report = admin.post("/api/weavers/cleanup", &json!({})).await.expect(200).json();
    assert_eq!(report, json!({"deleted_count": 1, "deleted_ids": [made["id"]]}));
    let acts =
        app.rows("SELECT action FROM audit_log WHERE action LIKE 'weaver.%' ORDER BY at, id").await;
    let acts: Vec<&str> = acts.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(acts, ["weaver.create", "weaver.create", "weaver.cleanup"]);
}

#[tokio::test]
async fn a_server_without_weavers_says_so() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let answer = ada.post("/api/weaver", &json!({"image": IMAGE})).await.expect(503);
    assert_eq!(answer.code(), "feature_disabled");
    assert_eq!(ada.get("/api/weavers").await.expect(200).json()["weavers"], json!([]));
}

#[tokio::test]
async fn the_canary_tells_whether_the_cluster_enforces_policies_and_leaves_nothing() {
    let cluster = FakeKubernetes::start();
    let setup = Setup::default().weavers(&cluster).set("LOOM_SERVER_WEAVER_CANARY_IMAGE", IMAGE);
    let app = setup.manual_clock().start().await;
    let component = async || {
        // An answer is kept for a second.
        app.clock.advance(std::time::Duration::from_secs(2));
        let health = app.anonymous().get("/health").await.json();
        health["components"]["kubernetes"].clone()
    };
    for (off, said, status) in
        [(1, "enforced", "healthy"), (0, "not_enforced", "degraded"), (4, "enforced", "healthy")]
    {
        let run = app.running.features.jobs.run_now("weaver-network-canary");
        let watch = async {
            for (class, code) in [("open", 0), ("off", off)] {
                let name = eventually(async || {
                    let pods = cluster.pods();
                    let named = |pod: &Value| {
                        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
                        name.starts_with(&format!("loom-canary-{class}-")).then_some(name)
                    };
                    pods.iter().find_map(named)
                })
                .await;
                cluster.pod_in(&name, "Running").await;
                cluster.exit(&name, code);
            }
        };
        let (done, ()) = tokio::join!(run, watch);
        done.unwrap();
        assert!(cluster.pods().is_empty());
        let kubernetes = eventually(async || {
            Some(component().await).filter(|now| now["network_policies"] == said)
        })
        .await;
        assert_eq!(kubernetes["status"], status, "{kubernetes}");
    }
}
