//! Lists and the search language.

use loom_core::principal::OrgRole;
use serde_json::{Value, json};

use super::{New, World, encode};

async fn three(world: &World) {
    world
        .issue(New {
            title: "TypeError: cart is undefined",
            events: &[5, 50],
            tags: &[
                ("release", "shop@1.2.0"),
                ("environment", "prod"),
                ("browser.name", "Firefox"),
            ],
            users: &["id:1", "id:2"],
            ..New::default()
        })
        .await;
    world
        .issue(New {
            title: "Timeout of payments",
            level: "warning",
            status: "regressed",
            events: &[60 * 30],
            tags: &[("release", "shop@1.10.0"), ("environment", "staging")],
            users: &["email:eve@example.com"],
        })
        .await;
    world
        .issue(New {
            title: "Disk is full 100%",
            level: "fatal",
            status: "resolved",
            events: &[60, 61, 62],
            tags: &[("environment", "prod"), ("note", "two words")],
            ..New::default()
        })
        .await;
}

#[tokio::test]
async fn each_term_of_the_language_finds_what_it_says() {
    let world = World::new().await;
    three(&world).await;
    let (cart, timeout, disk) =
        ("TypeError: cart is undefined", "Timeout of payments", "Disk is full 100%");
    let today = world.now().format("%Y-%m-%d");
    let cases: &[(&str, &[&str])] = &[
        ("", &[cart, disk, timeout]),
        ("is:unresolved", &[cart, timeout]),
        ("!is:unresolved", &[disk]),
        ("is:regressed", &[timeout]),
        ("is:resolved level:fatal", &[disk]),
        ("level:[fatal, warning]", &[disk, timeout]),
        ("!level:fatal", &[cart, timeout]),
        ("release:shop@1.2.0", &[cart]),
        ("release:shop@1.*", &[cart, timeout]),
        ("!release:shop@1.2.0", &[disk, timeout]),
        ("environment:prod", &[cart, disk]),
        ("environment:prod environment:staging", &[]),
        ("browser.name:firefox", &[]),
        ("browser.name:fire*", &[cart]),
        ("tags[note]:\"two words\"", &[disk]),
        ("note:two*", &[disk]),
        ("has:release", &[cart, timeout]),
        ("!has:release", &[disk]),
        ("user.email:eve@example.com", &[timeout]),
        ("user.email:*@example.com", &[timeout]),
        ("user.id:[1, 9]", &[cart]),
        ("!user.id:1", &[disk, timeout]),
        ("last_seen:-24h", &[cart, disk]),
        ("last_seen:+1d", &[timeout]),
        ("first_seen:>2001-01-31", &[cart, disk, timeout]),
        ("first_seen:<=2001-01-31T12:00:00Z", &[]),
        ("times_seen:>1", &[cart, disk]),
        ("times_seen:3", &[disk]),
        ("users_seen:>=2", &[cart]),
        ("title:*100%*", &[disk]),
        ("title:*_*", &[]),
        ("cart", &[cart]),
        ("timeo", &[timeout]),
        ("\"is full\"", &[disk]),
        ("\"full is\"", &[]),
        ("!cart", &[disk, timeout]),
        ("cart.is", &[cart]),
        ("is:unassigned payments", &[timeout]),
        ("assigned:me", &[]),
        ("assigned:nobody@example.com", &[]),
        ("!assigned:nobody@example.com", &[cart, disk, timeout]),
    ];
    for (query, expected) in cases {
        assert_eq!(world.find(query).await, *expected, "{query}");
    }
    // The day of some events, whichever that is.
    assert!(!world.find(&format!("last_seen:<={today}")).await.is_empty());
}

#[tokio::test]
async fn what_is_not_understood_is_refused_with_its_place_and_what_there_is() {
    let world = World::new().await;
    let cases = [
        ("is:open2", 3, "`unresolved`"),
        ("level:error is:x", 15, "there are"),
        ("level:loud", 6, "`fatal`"),
        ("last_seen:yesterday", 10, "-24h"),
        ("last_seen:-99999999999w", 10, "is no time"),
        ("times_seen:many", 11, "is no number"),
        ("release:>1.2", 8, "is a tag"),
        ("a OR b", 2, "all terms must hold"),
        ("a \"b", 2, "is not closed"),
        ("level:[error", 6, "is not closed"),
        ("has:", 4, "lacks its value"),
        ("assigned:somebody", 9, "an e-mail address"),
        ("release:[1.*, 2]", 9, "takes no `*`"),
    ];
    for (query, position, hint) in cases {
        let path = format!("{}/issues?query={}", world.path, encode(query));
        let refused = world.ada.get(&path).await.expect(422);
        assert_eq!(refused.code(), "invalid_request");
        let problem = refused.json();
        assert_eq!(problem["position"], json!(position), "{query}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(hint), "{query}: {problem}");
        assert_eq!(problem["errors"][0]["path"], "query");
    }
    let path = format!("{}/issues?status=gone", world.path);
    let problem = world.ada.get(&path).await.expect(422).json();
    assert_eq!(problem["errors"][0]["path"], "status");
    let long = "a ".repeat(21);
    world.ada.get(&format!("{}/issues?query={}", world.path, encode(&long))).await.expect(422);
}

#[tokio::test]
async fn every_order_gives_each_issue_once_over_its_pages() {
    let world = World::new().await;
    for n in 0..7_i64 {
        let events: Vec<i64> = (0..=n % 3).map(|m| 1 + n % 4 + m).collect();
        world.issue(New { title: &format!("issue {n}"), events: &events, ..New::default() }).await;
    }
    for (sort, field) in [
        ("last_seen", "last_seen"),
        ("first_seen", "first_seen"),
        ("events", "event_count"),
        ("users", "user_count"),
    ] {
        let mut found: Vec<Value> = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("{}/issues?sort={sort}&limit=2{cursor}", world.path);
            let page = world.ada.get(&path).await.expect(200).json();
            found.extend(page["issues"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            // A cursor of this list is none of another.
            let other = format!("{}/issues?sort={sort}&level=error{cursor}", world.path);
            assert_eq!(world.ada.get(&other).await.expect(400).code(), "invalid_cursor");
        }
        let key = |issue: &Value| match &issue[field] {
            Value::Number(number) => format!("{:020}", number.as_i64().unwrap()),
            other => other.as_str().unwrap().to_owned(),
        };
        let keys: Vec<_> = found.iter().map(key).collect();
        assert!(keys.is_sorted_by(|a, b| a >= b), "{sort}: {keys:?}");
        let mut ids: Vec<_> = found.iter().map(|issue| issue["id"].to_string()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 7, "{sort}");
    }
}

#[tokio::test]
async fn filters_beside_the_query_and_all_projects_of_an_organisation() {
    let world = World::new().await;
    three(&world).await;
    let path = format!(
        "{}/issues?status=unresolved&level=error&environment=prod&release=shop%401.2.0&query=cart",
        world.path
    );
    let page = world.ada.get(&path).await.expect(200).json();
    assert_eq!(page["issues"].as_array().unwrap().len(), 1);
    assert_eq!(page["issues"][0]["short_id"], "WEB-1");
    let all = world.ada.get("/api/crash/issues?query=environment%3Aprod").await.expect(200).json();
    assert_eq!(all["issues"].as_array().unwrap().len(), 2);
    assert_eq!(all["issues"][0]["project"]["slug"], "web");
    world.ada.get("/api/crash/issues?sort=users").await.expect(422);
    // Those of another organisation are not there, whoever asks for them and how.
    let bob = world.app.user("bob@example.com").await;
    let none = bob.get("/api/crash/issues").await.expect(200).json();
    assert_eq!(none["issues"], json!([]));
    bob.get(&format!("/api/crash/projects/{}/issues", world.project)).await.expect(404);
    let there = bob.with("x-loom-org", &world.ada.org.to_string());
    world.app.join(bob.id, world.ada.org, OrgRole::Member).await;
    let page = there.get(&format!("{}/issues", world.path)).await.expect(200).json();
    assert_eq!(page["issues"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn values_of_tags_are_found_by_their_beginning_in_any_case() {
    let world = World::new().await;
    for (title, user) in [("a", "Ada.Lovelace"), ("b", "ada-2"), ("c", "not ada"), ("d", "ad%")] {
        world.issue(New { title, tags: &[("team.lead", user)], ..New::default() }).await;
    }
    let found = async |query: &str| {
        let mut titles = world.find(query).await;
        titles.sort();
        titles
    };
    assert_eq!(found("team.lead:ADA*").await, ["a", "b"]);
    assert_eq!(found("team.lead:*ada").await, ["c"]);
    assert_eq!(found("team.lead:ad%*").await, ["d"]);
    assert_eq!(found("!team.lead:ada*").await, ["c", "d"]);
    assert_eq!(found("!has:team.lead").await, [""; 0]);
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_ended_and_says_what_to_leave_out() {
    let world = World::new().await;
    world.issue(New::default()).await;
    // As slow as it gets: nothing can be read.
    let mut tx = loom_db::begin(world.app.database.pool()).await.unwrap();
    sqlx::query("LOCK TABLE crash_issues IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *tx)
        .await
        .unwrap();
    let path = format!("{}/issues?query={}", world.path, encode("!has:team"));
    let refused = world.ada.get(&path).await.expect(422);
    assert_eq!(refused.code(), "query_too_broad");
    drop(tx);
    world.ada.get(&path).await.expect(200);
}
