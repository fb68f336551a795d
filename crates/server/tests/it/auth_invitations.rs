//! Invitations: by mail, for one address, good once, for seven days.

use std::time::Duration;

use loom_core::principal::OrgRole;
use loom_testkit::{Answer, Setup, TestApp, User};
use serde_json::{Value, json};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Team {
    app: TestApp,
    ada: User,
    bob: User,
    id: String,
}

impl Team {
    async fn new() -> Self {
        let app = Setup::default().manual_clock().start().await;
        let ada = app.user("ada@example.com").await;
        let bob = app.user("bob@example.com").await;
        let new = json!({"slug": "engines", "name": "Engines"});
        let id = ada.post("/api/orgs", &new).await.expect(201).json()["id"].clone();
        Self { id: id.as_str().unwrap().to_owned(), app, ada, bob }
    }

    fn path(&self) -> String {
        format!("/api/orgs/{}/invitations", self.id)
    }

    async fn invite(&self, by: &User, email: &str, role: &str) -> Answer {
        by.post(&self.path(), &json!({"email": email, "role": role})).await
    }

    /// As it stands in the link.
    fn token_of(&self, invitation: &Value) -> String {
        let link = invitation["link"].as_str().unwrap();
        link.split_once("/invitations/accept?token=").unwrap().1.to_owned()
    }

    async fn accept(&self, by: &User, token: &str) -> Answer {
        by.post("/api/orgs/invitations/accept", &json!({ "token": token })).await
    }
}

#[tokio::test]
async fn who_is_invited_joins_with_the_role_once() {
    let team = Team::new().await;
    let made = team.invite(&team.ada, " Bob@Example.com ", "admin").await.expect(201);
    let invitation = made.json();
    assert_eq!(invitation["email"], "bob@example.com");
    let list = team.ada.get(&team.path()).await.expect(200).json();
    let mut listed = invitation.clone();
    listed.as_object_mut().unwrap().remove("link").expect("shown to who made it, this once");
    assert_eq!(list["invitations"], json!([listed]));
    let mails = team.app.rows("SELECT * FROM deliveries").await;
    assert_eq!(mails.len(), 1, "{mails:?}");

    team.bob.get(&format!("/auth/me?org={}", team.id)).await.expect(404);
    let token = team.token_of(&invitation);
    let joined = team.accept(&team.bob, &token).await.expect(200).json();
    assert_eq!(joined, json!({"org_id": team.id, "role": "admin"}));
    let me = team.bob.get(&format!("/auth/me?org={}", team.id)).await.expect(200).json();
    assert_eq!(me["role"], "admin");
    team.accept(&team.bob, &token).await.expect(404);
    let list = team.ada.get(&team.path()).await.expect(200).json();
    assert_eq!(list["invitations"], json!([]));
    assert_eq!(
        team.invite(&team.ada, "bob@example.com", "member").await.expect(409).code(),
        "already_member"
    );
}

#[tokio::test]
async fn an_invitation_is_for_its_address_alone() {
    let team = Team::new().await;
    let cleo = team.app.user("cleo@example.com").await;
    let invitation = team.invite(&team.ada, "bob@example.com", "member").await.expect(201).json();
    let token = team.token_of(&invitation);
    assert_eq!(team.accept(&cleo, &token).await.expect(403).code(), "wrong_address");
    let new = json!({"name": "r", "kind": "service", "scopes": ["admin:write"]});
    let keys = format!("/api/orgs/{}/api-keys", team.bob.org);
    let made = team.bob.post(&keys, &new).await.expect(201).json();
    let robot = team.bob.with_key(made["secret"].as_str().unwrap());
    let body = json!({ "token": token });
    robot.post("/api/orgs/invitations/accept", &body).await.expect(403);
    team.accept(&team.bob, &token).await.expect(200);
}

#[tokio::test]
async fn one_that_is_expired_revoked_or_sent_anew_is_worth_nothing() {
    let team = Team::new().await;
    let invite =
        async || team.invite(&team.ada, "bob@example.com", "member").await.expect(201).json();
    let first = invite().await;
    let first_token = team.token_of(&first);
    let second = invite().await;
    let second_token = team.token_of(&second);
    team.accept(&team.bob, &first_token).await.expect(404);
    team.ada
        .delete(&format!("{}/{}", team.path(), second["id"].as_str().unwrap()))
        .await
        .expect(204);
    team.accept(&team.bob, &second_token).await.expect(404);
    team.ada
        .delete(&format!("{}/{}", team.path(), second["id"].as_str().unwrap()))
        .await
        .expect(404);
    let third = invite().await;
    let token = team.token_of(&third);
    team.app.clock.advance(7 * DAY);
    team.accept(&team.bob, &token).await.expect(404);
    let fourth = invite().await;
    let token = team.token_of(&fourth);
    team.app.clock.advance(6 * DAY);
    team.accept(&team.bob, &token).await.expect(200);
}

#[tokio::test]
async fn one_whose_sender_lost_the_right_to_it_is_worth_nothing() {
    let team = Team::new().await;
    let org = team.id.parse().unwrap();
    let mallory = team.app.user("mallory@example.com").await;
    team.app.join(mallory.id, org, OrgRole::Admin).await;
    let invitation = team.invite(&mallory, "bob@example.com", "admin").await.expect(201).json();
    let token = team.token_of(&invitation);
    let member = format!("/api/orgs/{}/members/{}", team.id, mallory.id);
    team.ada.delete(&member).await.expect(204);
    team.accept(&team.bob, &token).await.expect(404);
}

#[tokio::test]
async fn nobody_invites_above_themselves_and_members_invite_nobody() {
    let team = Team::new().await;
    let org = team.id.parse().unwrap();
    let cleo = team.app.user("cleo@example.com").await;
    team.app.join(team.bob.id, org, OrgRole::Admin).await;
    team.app.join(cleo.id, org, OrgRole::Member).await;
    for (by, role, status) in [
        (&cleo, "member", 403),
        (&team.bob, "owner", 403),
        (&team.bob, "admin", 201),
        (&team.ada, "owner", 201),
    ] {
        team.invite(by, &format!("{role}@example.org"), role).await.expect(status);
    }
    cleo.get(&team.path()).await.expect(403);
    for email in ["", "nobody", "a b@example.com", "a@b@c"] {
        let answer = team.invite(&team.ada, email, "member").await.expect(422);
        assert_eq!(answer.json()["errors"][0]["path"], "email", "{email}");
    }
}

#[tokio::test]
async fn the_mails_to_an_address_are_limited_over_all_replicas() {
    let team = Team::new().await;
    let other = team.app.replica().await;
    for n in 0..5 {
        let server = if n % 2 == 0 { &team.app.running } else { &other };
        let new = json!({"email": "bob@example.com", "role": "member"});
        team.ada.at(server).post(&team.path(), &new).await.expect(201);
    }
    let limited = team.invite(&team.ada, "bob@example.com", "member").await.expect(429);
    assert_eq!(limited.header("retry-after"), Some("720"));
    assert_eq!(limited.code(), "rate_limited");
    team.invite(&team.ada, "cleo@example.com", "member").await.expect(201);
    team.app.clock.advance(Duration::from_secs(720));
    team.invite(&team.ada, "bob@example.com", "member").await.expect(201);
    team.invite(&team.ada, "bob@example.com", "member").await.expect(429);
    // Whom it is about does not stand there.
    let stored = serde_json::to_string(&team.app.rows("SELECT * FROM rate_limits").await).unwrap();
    assert!(!stored.contains("bob") && !stored.contains(&team.id), "{stored}");
    other.shut_down().await;
}

#[tokio::test]
async fn who_makes_many_organisations_sends_no_more_mails_for_it() {
    let team = Team::new().await;
    let new = json!({"slug": "second", "name": "Second"});
    team.ada.post("/api/orgs", &new).await.expect(201);
    let third = json!({"slug": "third", "name": "Third"});
    team.ada.post("/api/orgs", &third).await.expect(201);
    for n in 0..100 {
        let org = if n % 2 == 0 { "engines" } else { "second" };
        let invitation = json!({"email": format!("n{n}@example.com"), "role": "member"});
        team.ada.post(&format!("/api/orgs/{org}/invitations"), &invitation).await.expect(201);
    }
    let invitation = json!({"email": "one@example.com", "role": "member"});
    let limited = team.ada.post("/api/orgs/third/invitations", &invitation).await.expect(429);
    assert_eq!(limited.code(), "rate_limited");
}

#[tokio::test]
async fn of_two_who_accept_at_once_one_joins() {
    let team = Team::new().await;
    let invitation = team.invite(&team.ada, "bob@example.com", "member").await.expect(201).json();
    let token = team.token_of(&invitation);
    let (a, b) = tokio::join!(team.accept(&team.bob, &token), team.accept(&team.bob, &token));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404]);
}
