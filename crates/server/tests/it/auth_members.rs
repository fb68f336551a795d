//! Members: their roles, who may change them, and the owner that always remains.

use std::time::Duration;

use loom_core::principal::OrgRole;
use loom_testkit::{TestApp, User, eventually};
use serde_json::{Value, json};

/// An organisation of Ada's with an admin and a member.
struct Team {
    app: TestApp,
    id: String,
    ada: User,
    bob: User,
    cleo: User,
}

impl Team {
    async fn new() -> Self {
        let app = TestApp::start().await;
        let ada = app.user("ada@example.com").await;
        let bob = app.user("bob@example.com").await;
        let cleo = app.user("cleo@example.com").await;
        let new = json!({"slug": "engines", "name": "Engines"});
        let id = ada.post("/api/orgs", &new).await.expect(201).json()["id"].clone();
        let id = id.as_str().unwrap().to_owned();
        app.join(bob.id, id.parse().unwrap(), OrgRole::Admin).await;
        app.join(cleo.id, id.parse().unwrap(), OrgRole::Member).await;
        Self { app, id, ada, bob, cleo }
    }

    fn path(&self, user: &User) -> String {
        format!("/api/orgs/{}/members/{}", self.id, user.id)
    }

    /// Who is what, by address.
    async fn roles(&self) -> Value {
        let query = format!(
            "SELECT jsonb_object_agg(u.email, m.role) AS roles FROM organisation_members m \
               JOIN users u ON u.id = m.user_id WHERE m.org_id = '{}'",
            self.id
        );
        self.app.rows(&query).await[0]["roles"].clone()
    }
}

#[tokio::test]
async fn members_are_listed_with_their_roles_page_by_page() {
    let team = Team::new().await;
    let path = format!("/api/orgs/{}/members", team.id);
    let mut seen = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = team.cleo.get(&format!("{path}{query}")).await.expect(200).json();
        for member in page["members"].as_array().unwrap() {
            seen.push((member["email"].clone(), member["role"].clone()));
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={cursor}");
    }
    seen.sort_by_key(|(email, _)| email.to_string());
    let expected = [("ada", "owner"), ("bob", "admin"), ("cleo", "member")];
    assert_eq!(
        seen,
        expected.map(|(name, role)| (json!(format!("{name}@example.com")), json!(role)))
    );
}

#[tokio::test]
async fn admins_change_members_and_only_owners_make_and_unmake_owners() {
    let team = Team::new().await;
    let (ada, bob, cleo) = (&team.ada, &team.bob, &team.cleo);
    let to = |role: &str| json!({"role": role});
    // (who, whom, role, status)
    for (who, whom, role, status) in [
        (cleo, bob, "member", 403),
        (cleo, cleo, "owner", 403),
        (bob, cleo, "owner", 403),
        (bob, ada, "member", 403),
        (bob, bob, "owner", 403),
        (bob, cleo, "admin", 204),
        (bob, cleo, "member", 204),
        (ada, cleo, "owner", 204),
        (cleo, ada, "member", 204),
    ] {
        let what = (&who.email, &whom.email, role);
        let answer = who.patch(&team.path(whom), &to(role)).await;
        assert_eq!(answer.status, status, "{what:?}: {}", answer.text);
    }
    let roles = json!({"ada@example.com": "member", "bob@example.com": "admin", "cleo@example.com": "owner"});
    assert_eq!(team.roles().await, roles);
    // It holds at once, also for a key that was just used.
    ada.patch(&team.path(bob), &to("member")).await.expect(403);
    let dora = team.app.user("dora@example.com").await;
    let answer = cleo.patch(&team.path(&dora), &to("member")).await.expect(404);
    assert!(answer.text.contains("member"), "{}", answer.text);
    let acts = team
        .app
        .rows("SELECT actor_name, target, details FROM audit_log WHERE action = 'member.change_role' ORDER BY at, id")
        .await;
    assert_eq!(acts.len(), 4);
    assert_eq!(acts[0]["target"], json!(cleo.id));
    assert_eq!(acts[0]["details"], json!({"from": "member", "to": "admin"}));
}

#[tokio::test]
async fn the_last_owner_stays_until_there_is_another() {
    let team = Team::new().await;
    let (ada, cleo) = (&team.ada, &team.cleo);
    let answer = ada.patch(&team.path(ada), &json!({"role": "admin"})).await.expect(409);
    assert_eq!(answer.code(), "last_owner");
    assert_eq!(ada.delete(&team.path(ada)).await.expect(409).code(), "last_owner");
    // One who cannot act is no owner to rely on.
    ada.patch(&team.path(cleo), &json!({"role": "owner"})).await.expect(204);
    let disable = format!("UPDATE users SET disabled_at = now() WHERE id = '{}'", cleo.id);
    sqlx::raw_sql(sqlx::AssertSqlSafe(disable)).execute(team.app.database.pool()).await.unwrap();
    assert_eq!(ada.delete(&team.path(ada)).await.expect(409).code(), "last_owner");
    team.app.rows("SELECT 1 FROM users").await;
    let enable = "UPDATE users SET disabled_at = NULL";
    sqlx::raw_sql(enable).execute(team.app.database.pool()).await.unwrap();
    ada.delete(&team.path(ada)).await.expect(204);
    assert_eq!(
        team.roles().await,
        json!({"bob@example.com": "admin", "cleo@example.com": "owner"})
    );
}

#[tokio::test]
async fn of_owners_who_all_leave_at_once_one_remains() {
    let team = Team::new().await;
    let owners = [&team.ada, &team.bob, &team.cleo];
    for user in [&team.bob, &team.cleo] {
        team.ada.patch(&team.path(user), &json!({"role": "owner"})).await.expect(204);
    }
    for round in 0..5 {
        let to = json!({"role": "admin"});
        let [a, b, c] = owners.map(|owner| {
            let (path, to) = (team.path(owner), to.clone());
            async move { owner.patch(&path, &to).await.status.as_u16() }
        });
        let (a, b, c) = tokio::join!(a, b, c);
        let mut statuses = [a, b, c];
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 204, 409], "round {round}");
        let roles = team.roles().await;
        let left: Vec<&User> =
            owners.into_iter().filter(|user| roles[&user.email] == "owner").collect();
        assert_eq!(left.len(), 1, "{roles}");
        for user in owners.into_iter().filter(|user| user.id != left[0].id) {
            left[0].patch(&team.path(user), &json!({"role": "owner"})).await.expect(204);
        }
    }
}

#[tokio::test]
async fn who_leaves_or_is_removed_is_out_at_once_with_the_keys_made_there() {
    let team = Team::new().await;
    let new = json!({"name": "mine", "kind": "personal", "scopes": ["threads:read"]});
    let keys = format!("/api/orgs/{}/api-keys", team.id);
    let made = team.cleo.post(&keys, &new).await.expect(201).json();
    let key = team.cleo.with_key(made["secret"].as_str().unwrap());
    let there = format!("/api/threads?org={}", team.id);
    key.get(&there).await.expect(200);
    team.cleo.get(&there).await.expect(200);

    team.cleo.delete(&team.path(&team.bob)).await.expect(403);
    team.bob.delete(&team.path(&team.ada)).await.expect(403);
    team.bob.delete(&team.path(&team.cleo)).await.expect(204);
    team.cleo.get(&there).await.expect(404);
    team.cleo.get("/api/threads").await.expect(200);
    // The key belonged to the organisation's list, where nobody but its admins sees it now.
    assert_eq!(key.get("/api/threads").await.expect(401).code(), "unauthenticated");
    team.bob.delete(&team.path(&team.cleo)).await.expect(404);
    team.bob.delete(&team.path(&team.bob)).await.expect(204);
    team.bob.get(&there).await.expect(404);
    let acts = team
        .app
        .rows("SELECT action FROM audit_log WHERE action LIKE 'member.%' ORDER BY at, id")
        .await;
    assert_eq!(acts, [json!({"action": "member.remove"}), json!({"action": "member.leave"})]);
}

#[tokio::test]
async fn an_organisation_is_handed_over_to_a_member() {
    let team = Team::new().await;
    let path = format!("/api/orgs/{}/transfer", team.id);
    let to = |user: &User| json!({"user_id": user.id});
    team.bob.post(&path, &to(&team.bob)).await.expect(403);
    let dora = team.app.user("dora@example.com").await;
    team.ada.post(&path, &to(&dora)).await.expect(404);
    team.ada.post(&path, &to(&team.ada)).await.expect(409);
    team.ada.post(&path, &to(&team.cleo)).await.expect(204);
    let roles = json!({"ada@example.com": "admin", "bob@example.com": "admin", "cleo@example.com": "owner"});
    assert_eq!(team.roles().await, roles);
    team.ada.post(&path, &to(&team.ada)).await.expect(403);
    team.ada.delete(&format!("/api/orgs/{}", team.id)).await.expect(403);
}

#[tokio::test]
async fn a_personal_organisation_keeps_its_one_member() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    let org = format!("/api/orgs/{}", ada.org);
    let me = format!("{org}/members/{}", ada.id);
    let invitation = json!({"email": "bob@example.com", "role": "member"});
    let answers = [
        ada.delete(&me).await,
        ada.patch(&me, &json!({"role": "member"})).await,
        ada.delete(&org).await,
        ada.patch(&org, &json!({"slug": "mine"})).await,
        ada.post(&format!("{org}/transfer"), &json!({"user_id": bob.id})).await,
        ada.post(&format!("{org}/invitations"), &invitation).await,
    ];
    for answer in answers {
        assert_eq!(answer.expect(409).code(), "personal_organisation");
    }
    ada.patch(&org, &json!({"name": "Home"})).await.expect(200);
    assert_eq!(ada.get(&org).await.expect(200).json()["name"], "Home");
}

#[tokio::test]
async fn an_organisation_is_renamed_and_goes_by_its_new_slug_at_once() {
    let team = Team::new().await;
    let path = format!("/api/orgs/{}", team.id);
    team.cleo.get("/auth/me?org=engines").await.expect(200);
    team.cleo.patch(&path, &json!({"name": "Mine"})).await.expect(403);
    let changed = team.bob.patch(&path, &json!({"name": "Motors", "slug": "motors"})).await;
    let org = changed.expect(200).json();
    assert_eq!((&org["name"], &org["slug"]), (&json!("Motors"), &json!("motors")));
    team.cleo.get("/auth/me?org=motors").await.expect(200);
    team.cleo.get("/auth/me?org=engines").await.expect(404);
    team.cleo.get("/api/orgs/motors").await.expect(200);
    team.ada.post("/api/orgs", &json!({"slug": "engines", "name": "E"})).await.expect(201);
    let taken = team.bob.patch(&path, &json!({"slug": "engines"})).await.expect(409);
    assert_eq!(taken.code(), "slug_taken");
    for slug in ["invitations", "A", ""] {
        team.bob.patch(&path, &json!({ "slug": slug })).await.expect(422);
    }
}

#[tokio::test]
async fn an_organisation_is_deleted_by_an_owner_when_nothing_is_left_in_it() {
    let team = Team::new().await;
    let path = format!("/api/orgs/{}", team.id);
    let new = json!({"name": "robot", "kind": "service", "scopes": ["threads:read"]});
    let made = team.ada.post(&format!("{path}/api-keys"), &new).await.expect(201).json();
    let robot = team.ada.with_key(made["secret"].as_str().unwrap());
    robot.get("/api/threads").await.expect(200);
    let thread = format!("T-{}", loom_core::id::new_uuid(team.app.clock.now()));
    let here = team.ada.with("x-loom-org", &team.id);
    let document = json!({"title": "t", "messages": []});
    here.put(&format!("/api/threads/{thread}"), &document).await.expect(201);

    team.bob.delete(&path).await.expect(403);
    let answer = team.ada.delete(&path).await.expect(409);
    assert_eq!(answer.code(), "organisation_not_empty");
    // Nothing of it was taken away by the attempt.
    robot.get("/api/threads").await.expect(200);
    assert_eq!(team.roles().await.as_object().unwrap().len(), 3);
    sqlx::query("DELETE FROM threads").execute(team.app.database.pool()).await.unwrap();
    team.ada.delete(&path).await.expect(204);
    robot.get("/api/threads").await.expect(401);
    for user in [&team.ada, &team.bob] {
        user.get(&path).await.expect(404);
        user.get(&format!("/api/threads?org={}", team.id)).await.expect(404);
    }
    // What was done there stays on record.
    let acts = "SELECT 1 FROM audit_log WHERE action = 'organisation.delete'";
    assert_eq!(team.app.rows(acts).await.len(), 1);
}

#[tokio::test]
async fn a_change_of_role_reaches_the_other_replica() {
    let team = Team::new().await;
    let other = team.app.replica().await;
    let there = format!("/auth/me?org={}", team.id);
    let bob = team.bob.at(&other);
    assert_eq!(bob.get(&there).await.expect(200).json()["role"], "admin");
    team.ada.patch(&team.path(&team.bob), &json!({"role": "member"})).await.expect(204);
    // Far sooner than what is cached would go by itself.
    let seen = eventually(async || {
        let role = bob.get(&there).await.expect(200).json()["role"].clone();
        (role == "member").then_some(())
    });
    tokio::time::timeout(Duration::from_secs(5), seen).await.unwrap();
    other.shut_down().await;
}
