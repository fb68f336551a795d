//! What a session is worth, from where, and how long.

use std::time::Duration;

use loom_testkit::{TestApp, eventually, smtp::SmtpServer};
use reqwest::Method;
use serde_json::json;

use super::{email_of, me, open, signed_in_by_mail, with};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn app() -> (TestApp, SmtpServer) {
    let smtp = SmtpServer::start();
    (with(open(), smtp.settings()).start().await, smtp)
}

async fn on_a_manual_clock() -> (TestApp, SmtpServer) {
    let smtp = SmtpServer::start();
    (with(open(), smtp.settings()).manual_clock().start().await, smtp)
}

#[tokio::test]
async fn a_user_sees_and_ends_the_own_sessions_and_no_others() {
    let (app, smtp) = app().await;
    let here = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let there = signed_in_by_mail(&app, &smtp, "ada@example.com", 2).await;
    let eve = signed_in_by_mail(&app, &smtp, "eve@example.com", 3).await;
    let list = here.get("/api/sessions").await.expect(200).json();
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    let own: Vec<_> = sessions.iter().filter(|s| s["current"] == true).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["id"], me(&here).await.unwrap()["via"]["id"]);
    assert_eq!(own[0]["device"], "Firefox on Linux");
    assert_eq!(own[0]["ip"], "127.0.0.1");
    assert_eq!((&own[0]["kind"], &own[0]["method"]), (&"web".into(), &"magic_link".into()));
    let other = me(&there).await.unwrap()["via"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/sessions/{other}");
    assert_eq!(eve.delete(&path).await.expect(404).code(), "not_found");
    assert!(me(&there).await.is_some());
    here.delete(&path).await.expect(204);
    assert!(me(&there).await.is_none(), "at once");
    here.delete(&path).await.expect(404);
    assert!(me(&here).await.is_some());
    let page = here.get("/api/sessions?limit=1").await.expect(200).json();
    assert_eq!(page["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn signing_out_ends_the_session_and_takes_the_cookie_away() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let secret = browser.cookie("loom_session").unwrap();
    browser.send(Method::POST, "/auth/logout", None, &[]).await.expect(204);
    assert!(browser.cookie("loom_session").is_none());
    browser.set_cookie("loom_session", &secret);
    assert!(me(&browser).await.is_none());
    let key = app.user("key@example.com").await;
    let answer = key.send(key.request(Method::POST, "/auth/logout")).await;
    assert_eq!(answer.expect(409).code(), "no_session");
}

#[tokio::test]
async fn a_session_slides_sixty_days_and_ends_after_a_hundred_and_eighty() {
    let (app, smtp) = on_a_manual_clock().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    for days in [59, 59, 59, 2] {
        app.clock.advance(days * DAY);
        let now = app.clock.now();
        forget_everything(&app).await;
        // The use is noted beside the request.
        eventually(async || {
            me(&browser).await?;
            let rows = app.rows("SELECT last_used_at FROM user_sessions").await;
            let noted = rows[0]["last_used_at"].as_str()?.parse::<chrono::DateTime<chrono::Utc>>();
            (noted.ok()? == now).then_some(())
        })
        .await;
    }
    app.clock.advance(DAY);
    assert!(me(&browser).await.is_none(), "180 days, whatever the use");

    let idle = signed_in_by_mail(&app, &smtp, "eve@example.com", 2).await;
    app.clock.advance(60 * DAY);
    for _ in 0..3 {
        // Showing it does not bring it back.
        assert!(me(&idle).await.is_none());
        forget_everything(&app).await;
    }
    app.running.features.jobs.run_now("session-cleanup").await.unwrap();
    eventually(async || app.rows("SELECT * FROM user_sessions").await.is_empty().then_some(()))
        .await;
}

#[tokio::test]
async fn the_last_use_is_written_at_most_once_in_five_minutes() {
    let (app, smtp) = on_a_manual_clock().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    sqlx::raw_sql(
        "CREATE TABLE noted (at timestamptz);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO noted VALUES (NEW.last_used_at); RETURN NEW; END $$;
         CREATE TRIGGER note AFTER UPDATE ON user_sessions FOR EACH ROW EXECUTE FUNCTION note();",
    )
    .execute(app.database.pool())
    .await
    .unwrap();
    let noted = async || app.rows("SELECT * FROM noted").await.len();
    // A look-up that is not cached, every half minute, for four and a half minutes.
    for _ in 0..9 {
        app.clock.advance(Duration::from_secs(30));
        forget_everything(&app).await;
        assert!(me(&browser).await.is_some());
    }
    assert_eq!(noted().await, 0);
    app.clock.advance(Duration::from_secs(30));
    forget_everything(&app).await;
    eventually(async || {
        me(&browser).await?;
        (noted().await == 1).then_some(())
    })
    .await;
}

/// A word that nobody understands makes replicas forget all that they have cached.
async fn forget_everything(app: &TestApp) {
    sqlx::query("SELECT pg_notify('loom_auth_revoked', 'all')")
        .execute(app.database.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cookie_counts_only_in_requests_of_our_own_pages() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let org = json!({"slug": "stolen", "name": "Stolen"}).to_string();
    let own = format!("http://localhost:{}", app.running.address.port());
    let cases: [(&[(&str, &str)], u16); 9] = [
        (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")], 403),
        (&[("sec-fetch-site", "same-site"), ("origin", &own)], 403),
        (&[("sec-fetch-site", ""), ("origin", "https://evil.example")], 403),
        (&[("sec-fetch-site", ""), ("origin", "null")], 403),
        (&[("sec-fetch-site", ""), ("origin", "")], 403),
        (&[("sec-fetch-site", "cross-site"), ("origin", "")], 403),
        (&[("sec-fetch-site", "none"), ("origin", "")], 201),
        (&[("sec-fetch-site", ""), ("origin", &own)], 409),
        (&[], 409),
    ];
    for (headers, status) in cases {
        let body = Some(("application/json", org.clone()));
        let answer = browser.send(Method::POST, "/api/orgs", body, headers).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?} {}", answer.text);
        if status == 403 {
            assert_eq!(answer.code(), "cross_site");
        }
    }
    // Reading is safe, and what an API key sends is no browser's doing.
    let foreign = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
    browser.send(Method::GET, "/api/orgs", None, &foreign).await.expect(200);
    let key = app.user("key@example.com").await.with("origin", "https://evil.example");
    key.post("/api/orgs", &json!({"slug": "own", "name": "Own"})).await.expect(201);
}

#[tokio::test]
async fn a_websocket_of_another_site_gets_no_cookie_in() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let own = format!("http://localhost:{}", app.running.address.port());
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    for (origin, status) in [("https://evil.example", 403), ("", 403), ("null", 403), (&own, 200)] {
        let headers =
            [upgrade[0], upgrade[1], ("origin", origin), ("sec-fetch-site", "same-origin")];
        let answer = browser.send(Method::GET, "/auth/me", None, &headers).await;
        assert_eq!(answer.status.as_u16(), status, "{origin}");
    }
}

#[tokio::test]
async fn a_websocket_token_is_good_once_for_half_a_minute_and_for_a_websocket_only() {
    let (app, smtp) = on_a_manual_clock().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let key = app.user("key@example.com").await;
    let token = async || {
        let answer = browser.get("/auth/ws-token").await.expect(200);
        assert_eq!(
            (&answer.json()["expires_in"], answer.header("cache-control")),
            (&30.into(), Some("no-store"))
        );
        answer.json()["token"].as_str().unwrap().to_owned()
    };
    let open_from = async |origin: Option<&str>, token: &str, is_websocket: bool| {
        let caller = app.anonymous();
        let mut request = caller.request(Method::GET, &format!("/auth/me?token={token}"));
        if is_websocket {
            request = request.header("connection", "upgrade").header("upgrade", "websocket");
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        caller.send(request).await
    };
    let open = async |token: &str, is_websocket: bool| open_from(None, token, is_websocket).await;
    let first = token().await;
    open(&first, false).await.expect(401);
    // A page from elsewhere has no use for one, and does not use it up.
    for origin in ["https://evil.example", "null"] {
        let refused = open_from(Some(origin), &first, true).await.expect(403);
        assert_eq!(refused.json()["code"], "cross_site");
    }
    let own = token().await;
    open_from(Some(&app.url()), &own, true).await.expect(200);
    let seen = open(&first, true).await.expect(200).json();
    assert_eq!(seen["user"]["email"], "ada@example.com");
    open(&first, true).await.expect(401);
    let late = token().await;
    app.clock.advance(Duration::from_secs(30));
    open(&late, true).await.expect(401);
    // It stands for its credential, and ends with it.
    let of_key =
        key.get("/auth/ws-token").await.expect(200).json()["token"].as_str().unwrap().to_owned();
    assert_eq!(open(&of_key, true).await.expect(200).json()["user"]["email"], "key@example.com");
    let orphan = token().await;
    browser.send(Method::POST, "/auth/logout", None, &[]).await.expect(204);
    open(&orphan, true).await.expect(401);
    open("ws_made-up", true).await.expect(401);
}

#[tokio::test]
async fn a_session_acts_in_the_organisation_that_is_chosen() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    browser
        .post_json("/api/orgs", &json!({"slug": "engines", "name": "Engines"}))
        .await
        .expect(201);
    let mine = me(&browser).await.unwrap();
    assert_eq!(mine["role"], "owner");
    let there = browser.send(Method::GET, "/auth/me", None, &[("x-loom-org", "engines")]).await;
    assert_ne!(there.expect(200).json()["org_id"], mine["org_id"]);
    browser.send(Method::GET, "/auth/me", None, &[("x-loom-org", "others")]).await.expect(404);
}

#[tokio::test]
async fn a_session_ended_at_one_replica_is_refused_at_the_other_by_word_not_by_age() {
    let (app, smtp) = app().await;
    let other = app.replica().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let there = browser.at(&other);
    assert!(me(&there).await.is_some(), "cached there now");
    let ended = std::time::Instant::now();
    browser.send(Method::POST, "/auth/logout", None, &[]).await.expect(204);
    there.set_cookie("loom_session", "");
    let secret = browser.seen.lock().unwrap().iter().find_map(|line| {
        line.strip_prefix("loom_session=").map(|rest| rest.split(';').next().unwrap().to_owned())
    });
    there.set_cookie("loom_session", &secret.unwrap());
    eventually(async || me(&there).await.is_none().then_some(())).await;
    // It takes milliseconds; without word it would be believed for ten seconds.
    assert!(ended.elapsed() < Duration::from_secs(5), "{:?}", ended.elapsed());
}

#[tokio::test]
async fn what_looks_like_a_session_is_none() {
    let (app, smtp) = app().await;
    let browser = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let secret = browser.cookie("loom_session").unwrap();
    // The browser's secret is no bearer token.
    app.anonymous().with_key(&secret).get("/auth/me").await.expect(401);
    for value in
        ["", "x", &"A".repeat(43), &format!("{secret}A"), &"ä".repeat(20), &"A".repeat(4000)]
    {
        let stranger = app.browser();
        if value.is_ascii() {
            stranger.set_cookie("loom_session", value);
            assert!(me(&stranger).await.is_none(), "{value}");
            // Pages for everybody stay open.
            stranger.get("/auth/sign-in").await.expect(200);
        }
    }
    assert_eq!(email_of(&browser).await.as_deref(), Some("ada@example.com"));
}
