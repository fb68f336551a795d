//! A stolen database lets nobody in: nothing in it is a credential that works.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use loom_testkit::{
    TestApp,
    idp::{CLIENT_SECRET, Idp, Person},
    smtp::SmtpServer,
};
use serde_json::json;

use super::{link_and_code, open, signed_in_by_mail, token_of, with};

/// Every row of every table, as text.
pub(crate) async fn dump(app: &TestApp) -> String {
    let tables = app
        .rows("SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
        .await;
    let mut whole = String::new();
    for table in tables {
        let name = table["name"].as_str().unwrap();
        for row in app.rows(&format!("SELECT t::text AS row FROM {name} t")).await {
            whole.push_str(row["row"].as_str().unwrap());
            whole.push('\n');
        }
    }
    whole
}

#[tokio::test]
async fn no_table_holds_a_credential_that_was_handed_out() {
    let (smtp, idp) = (SmtpServer::start(), Idp::start());
    let setup = with(with(open(), smtp.settings()), idp.settings("github"));
    let app = with(setup, idp.settings("google")).start().await;
    let mut secrets = vec![CLIENT_SECRET.to_owned()];
    let link = app.running.features.auth.setup_link().await.unwrap().unwrap();
    secrets.push(token_of(&link));

    // Everything in the middle of its way, so that nothing was cleaned away yet.
    let ada = signed_in_by_mail(&app, &smtp, "ada@example.com", 1).await;
    let asking = app.browser();
    asking.submit("/auth/magic-link", &[("email", "eve@example.com")]).await.expect(202);
    for n in 1..=2 {
        let (link, code) = link_and_code(&smtp.mail(n).await);
        secrets.extend([token_of(&link), code.replace('-', ""), code]);
    }
    idp.sign_in_as(Person::new("7", "grace@example.com"));
    for provider in ["github", "google"] {
        let browser = app.browser();
        browser.sign_in_with(provider).await;
        let under_way = browser.to_provider_and_back(provider).await;
        let url: reqwest::Url = under_way.parse().unwrap();
        secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        secrets.extend(cookies(&browser));
    }
    let started = app.anonymous().post("/auth/device/start", &json!({})).await.expect(200).json();
    let shown = started["user_code"].as_str().unwrap().to_owned();
    secrets.extend([
        started["device_code"].as_str().unwrap().to_owned(),
        shown.replace('-', ""),
        shown.clone(),
    ]);
    let other = app.anonymous().post("/auth/device/start", &json!({})).await.expect(200).json();
    let fields = [("user_code", other["user_code"].as_str().unwrap()), ("approve", "true")];
    ada.submit("/auth/device/complete", &fields).await.expect(200);
    let device_code = json!({"device_code": other["device_code"]});
    let token = app.anonymous().post("/auth/device/poll", &device_code).await.expect(200).json();
    secrets.push(token["access_token"].as_str().unwrap().to_owned());
    secrets.push(ada.get("/auth/ws-token").await.json()["token"].as_str().unwrap().to_owned());
    let me = ada.get("/auth/me").await.json();
    let org = me["org_id"].as_str().unwrap();
    let key = json!({"name": "k", "kind": "personal", "scopes": ["threads:read"]});
    let key = ada.post_json(&format!("/api/orgs/{org}/api-keys"), &key).await.expect(201).json();
    secrets.push(key["secret"].as_str().unwrap().to_owned());
    secrets.extend(cookies(&ada));
    secrets.extend(cookies(&asking));
    secrets.extend(idp.secrets());

    let dump = dump(&app).await;
    for table in ["ada@example.com", "eve@example.com", "grace@example.com"] {
        assert!(dump.contains(table), "the dump shows what is stored");
    }
    assert!(secrets.len() > 25, "{}", secrets.len());
    for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
        let bytes = secret.as_bytes();
        let mut forms = vec![
            secret.clone(),
            hex(bytes),
            STANDARD.encode(bytes),
            STANDARD_NO_PAD.encode(bytes),
            URL_SAFE.encode(bytes),
            URL_SAFE_NO_PAD.encode(bytes),
        ];
        // What it stands for.
        forms.extend(
            URL_SAFE_NO_PAD.decode(bytes).ok().filter(|raw| raw.len() == 32).map(|raw| hex(&raw)),
        );
        for form in forms {
            assert!(
                !dump.to_lowercase().contains(&form.to_lowercase()),
                "{secret} is stored as {form}"
            );
        }
    }
}

fn cookies(browser: &loom_testkit::browser::Browser) -> Vec<String> {
    let seen = browser.seen.lock().unwrap();
    let value = |line: &String| line.split_once('=')?.1.split(';').next().map(str::to_owned);
    seen.iter().filter_map(value).filter(|value| !value.is_empty()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
