//! Somebody is told when a release does badly: once.

use std::time::Duration;

use loom_testkit::{Setup, eventually, smtp::SmtpServer, webhook::WebhookReceiver};
use serde_json::json;

use crate::harness::Rig;

fn setup(smtp: &SmtpServer) -> Setup {
    let setup = Setup::default()
        .manual_clock()
        .set("LOOM_SERVER_OUTBOUND_ALLOW", "127.0.0.0/8")
        .set("LOOM_SERVER_BASE_URL", "https://loom.example");
    smtp.settings().into_iter().fold(setup, |setup, (name, value)| setup.set(name, value))
}

async fn many(rig: &Rig, release: &str, crashed: usize, all: usize) {
    for n in 0..all {
        rig.one(release, if n < crashed { "crashed" } else { "exited" }).await;
    }
}

#[tokio::test]
async fn a_release_below_the_bar_is_told_once_over_all_servers_and_once_when_it_is_well_again() {
    let smtp = SmtpServer::start();
    let hook = WebhookReceiver::start();
    let rig = Rig::with(setup(&smtp)).await;
    let new = json!({"project_id": "shop", "name": "Crashes", "kind": "crash_free_sessions",
        "threshold": 95, "min_sessions": 20, "window_minutes": 60,
        "emails": ["ada@example.com"], "webhook_url": hook.url("/alerts")});
    let made = rig.ada.post("/api/app-sessions/alerts", &new).await.expect(201).json();
    assert!(made["webhook_secret"].as_str().unwrap().starts_with("whsec_"));
    let path = format!("/api/app-sessions/alerts/{}", made["id"].as_str().unwrap());
    many(&rig, "1.0", 10, 19).await;
    rig.run("app-session-alerts").await;
    assert_eq!(rig.get(&path).await["firing"], json!([]), "19 sessions say nothing");
    many(&rig, "1.0", 0, 1).await;
    many(&rig, "2.0", 1, 100).await;
    let other = rig.app.replica().await;
    for _ in 0..3 {
        let (here, there) = (&rig.app.running.features.jobs, &other.features.jobs);
        let _ =
            tokio::join!(here.run_now("app-session-alerts"), there.run_now("app-session-alerts"));
    }
    let mail = smtp.mail(1).await;
    assert_eq!(mail.to, ["ada@example.com"]);
    assert!(mail.subject().contains("release 1.0 does badly"), "{}", mail.subject());
    for part in [
        "50.00 % of 20 sessions did without a crash in the last hour",
        "10 crashed",
        "95 % confidence",
        "the bar is 95 %",
    ] {
        assert!(mail.text().contains(part), "{part} in {}", mail.text());
    }
    let page = format!("https://loom.example/releases/shop/1%2E0?org={}", rig.ada.org);
    assert!(mail.text().contains(&page), "{}", mail.text());
    let call = hook.call(1).await.json();
    assert_eq!((&call["type"], &call["data"]["url"]), (&json!("app_session.alert"), &json!(page)));
    assert_eq!((&call["data"]["release"], &call["data"]["firing"]), (&json!("1.0"), &json!(true)));
    let firing = rig.get(&path).await["firing"].clone();
    assert_eq!((&firing[0]["release"], &firing[0]["value"]), (&json!("1.0"), &json!(50.0)));

    many(&rig, "1.0", 0, 300).await;
    for _ in 0..2 {
        rig.run("app-session-alerts").await;
    }
    let mail = smtp.mail(2).await;
    assert!(mail.subject().contains("release 1.0 is well again"), "{}", mail.subject());
    assert_eq!(hook.call(2).await.json()["data"]["firing"], false);
    assert_eq!(rig.get(&path).await["firing"], json!([]));

    // Nothing was queued twice.
    let queued = rig.app.rows("SELECT kind, channel FROM deliveries").await;
    assert_eq!(queued.len(), 4, "{queued:?}");
    eventually(async || (smtp.mails().len() == 2 && hook.calls().len() == 2).then_some(())).await;

    rig.ada.delete(&path).await.expect(204);
    rig.ada.get(&path).await.expect(404);
    assert_eq!(rig.app.rows("SELECT * FROM webhooks").await.len(), 0);
    other.shut_down().await;
}

#[tokio::test]
async fn a_regression_is_told_with_its_confidence_and_small_numbers_are_not() {
    let smtp = SmtpServer::start();
    let rig = Rig::with(setup(&smtp)).await;
    let new = json!({"project_id": "shop", "name": "Worse", "kind": "regression", "min_sessions": 20,
        "emails": ["ada@example.com"]});
    let made = rig.ada.post("/api/app-sessions/alerts", &new).await.expect(201).json();
    assert_eq!(made["threshold"], 95.0);
    let path = format!("/api/app-sessions/alerts/{}", made["id"].as_str().unwrap());
    many(&rig, "1.0", 4, 200).await;
    rig.app.clock.advance(Duration::from_secs(1800));
    // 4 of 30 beside 4 of 200: too few crashes to be sure.
    many(&rig, "2.0", 4, 30).await;
    rig.run("app-session-alerts").await;
    assert_eq!(rig.get(&path).await["firing"], json!([]));
    many(&rig, "2.0", 30, 170).await;
    rig.run("session-aggregation").await;
    rig.run("app-session-alerts").await;
    let mail = smtp.mail(1).await;
    for part in [
        "release 2.0",
        "of 1.0 before it 98.00 %",
        "sure (one-sided test of two proportions; 95 % is wanted)",
    ] {
        assert!(
            mail.text().to_lowercase().contains(&part.to_lowercase()),
            "{part} in {}",
            mail.text()
        );
    }
    assert!(rig.get(&path).await["firing"][0]["value"].as_f64().unwrap() > 99.0);
}

#[tokio::test]
async fn users_count_too_and_rules_are_checked_and_changed() {
    let smtp = SmtpServer::start();
    let rig = Rig::with(setup(&smtp)).await;
    let good = json!({"project_id": "shop", "name": "Users", "kind": "crash_free_users", "threshold": 99,
        "min_sessions": 10, "emails": ["ada@example.com"]});
    for (members, field) in [
        (json!({"name": ""}), "name"),
        (json!({"threshold": 101}), "threshold"),
        (json!({"min_sessions": 0}), "min_sessions"),
        (json!({"window_minutes": 45}), "window_minutes"),
        (json!({"emails": ["nobody"]}), "emails"),
        (json!({"emails": []}), "emails"),
        (json!({"webhook_url": "http://10.0.0.1/"}), "webhook_url"),
        (json!({"kind": "mood"}), "kind"),
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let answer = rig.ada.post("/api/app-sessions/alerts", &body).await.expect(422).json();
        assert_eq!(answer["errors"][0]["path"], field, "{answer}");
    }
    let made = rig.ada.post("/api/app-sessions/alerts", &good).await.expect(201).json();
    let path = format!("/api/app-sessions/alerts/{}", made["id"].as_str().unwrap());
    many(&rig, "1.0", 1, 20).await;
    rig.run("app-session-alerts").await;
    assert!(smtp.mail(1).await.text().contains("95.00 % of 20 users met no crash"));
    let list = rig.get("/api/app-sessions/alerts?project=shop").await;
    assert_eq!(list["alerts"].as_array().unwrap().len(), 1);
    // Another bar is another rule: it is judged anew.
    rig.app.clock.advance(Duration::from_secs(1));
    let changed = rig.ada.patch(&path, &json!({"threshold": 90})).await.expect(200).json();
    assert_eq!((&changed["threshold"], &changed["firing"]), (&json!(90.0), &json!([])));
    rig.run("app-session-alerts").await;
    assert_eq!(rig.get(&path).await["firing"], json!([]));
    rig.ada.patch(&path, &json!({"enabled": false, "threshold": 99})).await.expect(200);
    rig.run("app-session-alerts").await;
    assert_eq!(rig.get(&path).await["firing"], json!([]), "it is switched off");
}
