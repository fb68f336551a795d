//! The routes under `/api/repos`.

use loom_core::principal::{OrgRole, Scope};
use serde_json::{Value, json};

use crate::harness::World;

#[tokio::test]
async fn a_repository_is_created_listed_changed_and_deleted() {
    let world = World::new().await;
    let new = json!({"name": "engine", "description": "of difference", "default_branch": "trunk"});
    let answer = world.ada.post("/api/repos", &new).await.expect(201);
    let made = answer.json();
    let path = format!("/api/repos/{}", made["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), Some(path.as_str()));
    assert_eq!(made["visibility"], "private");
    assert_eq!(made["owner_user_id"], world.ada.id.to_string());
    let head = std::fs::read_to_string(world.bare(&made).join("HEAD")).unwrap();
    assert_eq!(head, "ref: refs/heads/trunk\n");
    assert_eq!(world.ada.get(&path).await.expect(200).json(), made);
    let page = world.ada.get("/api/repos").await.expect(200).json();
    assert_eq!(page, json!({"repositories": [made], "next_cursor": null}));

    let change = json!({"name": "motor", "description": "", "default_branch": "main"});
    let changed = world.ada.patch(&path, &change).await.expect(200).json();
    assert!(changed["clone_url"].as_str().unwrap().ends_with("/motor.git"));
    assert_eq!((&changed["name"], &changed["description"]), (&json!("motor"), &json!("")));
    world.ada.delete(&path).await.expect(204);
    world.ada.delete(&path).await.expect(404);
    let acts = world
        .app
        .rows("SELECT action, target FROM audit_log WHERE action LIKE 'repository.%' ORDER BY at")
        .await;
    let acts: Vec<_> = acts.iter().map(|act| act["action"].as_str().unwrap()).collect();
    assert_eq!(acts, ["repository.create", "repository.update", "repository.delete"]);
}

#[tokio::test]
async fn a_name_that_is_taken_or_could_be_something_else_is_refused() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let taken = world.ada.post("/api/repos", &json!({"name": "ENGINE"})).await.expect(409);
    assert_eq!(taken.code(), "name_taken");
    let other = world.create("other").await;
    let path = format!("/api/repos/{}", other["id"].as_str().unwrap());
    assert_eq!(world.ada.patch(&path, &json!({"name": "Engine"})).await.code(), "name_taken");
    for name in [
        "",
        "..",
        "../engine",
        "a/b",
        "a\\b",
        ".a",
        "-a",
        "a.git",
        "a.lock",
        "a b",
        "ä",
        "a\n",
        made["id"].as_str().unwrap(),
    ] {
        let refused = world.ada.post("/api/repos", &json!({"name": name})).await.expect(422);
        assert_eq!(refused.json()["errors"][0]["path"], "name", "{name}");
    }
    for branch in ["", "-x", "a..b", "--upload-pack=x", "a b"] {
        let new = json!({"name": "x", "default_branch": branch});
        let refused = world.ada.post("/api/repos", &new).await.expect(422);
        assert_eq!(refused.json()["errors"][0]["path"], "default_branch", "{branch}");
    }
    world.ada.post("/api/repos", &json!({"name": "x", "visibility": "secret"})).await.expect(422);
    // Of what was refused nothing is left on the disk.
    let org = world.bare(&made).parent().unwrap().to_owned();
    assert_eq!(std::fs::read_dir(org).unwrap().count(), 2);
}

#[tokio::test]
async fn of_many_who_create_one_name_at_the_same_moment_one_does() {
    let world = World::new().await;
    let new = json!({"name": "engine"});
    let tries = (0..8).map(|_| world.ada.post("/api/repos", &new));
    let mut statuses: Vec<u16> = futures::future::join_all(tries)
        .await
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    let org = world.app.data_dir().join(format!("repos/{}", world.ada.org));
    assert_eq!(std::fs::read_dir(org).unwrap().count(), 1);
}

#[tokio::test]
async fn what_one_may_do_follows_from_scope_owner_and_visibility() {
    let world = World::new().await;
    let bob = world.app.user("bob@example.com").await;
    world.app.join(bob.id, world.ada.org, OrgRole::Member).await;
    let org = world.ada.org.to_string();
    let bob = bob.caller.with("x-loom-org", &org);
    let made = world.create("engine").await;
    let path = format!("/api/repos/{}", made["id"].as_str().unwrap());
    let maintenance = format!("{path}/maintenance");

    bob.get(&path).await.expect(404);
    bob.patch(&path, &json!({"name": "mine"})).await.expect(404);
    assert_eq!(bob.get("/api/repos").await.json()["repositories"], json!([]));
    world.ada.patch(&path, &json!({"visibility": "organization"})).await.expect(200);
    bob.get(&path).await.expect(200);
    bob.get(&maintenance).await.expect(200);
    assert_eq!(bob.get("/api/repos").await.json()["repositories"].as_array().unwrap().len(), 1);
    bob.patch(&path, &json!({"name": "mine"})).await.expect(403);
    bob.delete(&path).await.expect(403);
    bob.post(&maintenance, &Value::Null).await.expect(403);

    let reader = world.app.with_scopes(&world.ada, &[Scope::ReposRead]).await;
    reader.get(&path).await.expect(200);
    reader.post("/api/repos", &json!({"name": "x"})).await.expect(403);
    reader.patch(&path, &json!({})).await.expect(403);
    reader.delete(&path).await.expect(403);
    reader.post(&maintenance, &Value::Null).await.expect(403);
    let writer = world.app.with_scopes(&world.ada, &[Scope::ReposWrite]).await;
    writer.get(&path).await.expect(403);
    writer.get("/api/repos").await.expect(403);
    world.ada.post("/api/admin/maintenance/sweep", &Value::Null).await.expect(403);
}

#[tokio::test]
async fn a_long_list_comes_in_pages_without_gaps_or_repetitions() {
    let world = World::new().await;
    for number in 0..5 {
        world.create(&format!("r{number}")).await;
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.ada.get(&format!("/api/repos?limit=2{cursor}")).await.expect(200).json();
        names.extend(page["repositories"].as_array().unwrap().iter().map(|r| r["name"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, ["r4", "r3", "r2", "r1", "r0"]);
    world.ada.get("/api/repos?cursor=x").await.expect(400);
    world.ada.get("/api/repos?limit=0").await.expect(422);
}
