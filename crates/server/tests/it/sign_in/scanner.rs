//! Programs that read mail before people do, follow every link and press every button.

use loom_testkit::{TestApp, browser::Browser, smtp::SmtpServer};
use reqwest::Method;

use super::{email_of, link_and_code, me, open, path_of, token_of, with};

/// Every form of a page: where it goes and its hidden fields.
fn forms(page: &str) -> Vec<(String, Vec<(String, String)>)> {
    let attribute = |tag: &str, name: &str| {
        let value = tag.split_once(&format!("{name}=\""))?.1;
        Some(value.split('"').next().unwrap_or_default().to_owned())
    };
    page.split("<form")
        .skip(1)
        .map(|form| {
            let form = form.split("</form>").next().unwrap();
            let inputs = form.split("<input").skip(1).filter_map(|input| {
                let input = input.split('>').next().unwrap();
                Some((attribute(input, "name")?, attribute(input, "value").unwrap_or_default()))
            });
            (attribute(form, "action").unwrap(), inputs.collect())
        })
        .collect()
}

/// Presses everything that can be pressed, and follows everything that can be followed.
async fn press_everything(browser: &Browser, page: &str, codes: &[String]) {
    for (action, fields) in forms(page) {
        let mut tries = vec![fields.clone()];
        for code in codes {
            let mut filled = fields.clone();
            filled.iter_mut().for_each(|(name, value)| {
                if name == "code" {
                    value.clone_from(code);
                }
            });
            tries.push(filled);
        }
        for fields in tries {
            let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let answer = browser.submit(&action, &fields).await;
            for (action, fields) in forms(&answer.text) {
                let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                browser.submit(&action, &fields).await;
            }
        }
    }
    for link in page.split("href=\"").skip(1) {
        let link = link.split('"').next().unwrap();
        if link.starts_with('/') {
            browser.get(link).await;
        }
    }
}

async fn app() -> (TestApp, SmtpServer) {
    let smtp = SmtpServer::start();
    (with(open(), smtp.settings()).start().await, smtp)
}

#[tokio::test]
async fn a_scanner_that_follows_links_and_presses_every_button_does_not_sign_in_nor_use_the_link_up()
 {
    let (app, smtp) = app().await;
    let person = app.browser();
    person.submit("/auth/magic-link", &[("email", "ada@example.com")]).await.expect(202);
    let (link, code) = link_and_code(&smtp.mail(1).await);
    let path = path_of(&link);
    for _ in 0..3 {
        let scanner = app.browser();
        for method in [Method::HEAD, Method::GET, Method::OPTIONS] {
            scanner.send(method, &path, None, &[]).await;
        }
        let page = scanner.get(&path).await.expect(200);
        press_everything(&scanner, &page.text, std::slice::from_ref(&code)).await;
        // By hand, with all that the mail has.
        for proof in [("token", token_of(&link)), ("code", code.clone())] {
            scanner.submit("/auth/magic-link/verify", &[(proof.0, &proof.1)]).await;
            let json = serde_json::json!({ proof.0: proof.1 });
            scanner.post_json("/auth/magic-link/verify", &json).await;
        }
        assert!(me(&scanner).await.is_none());
        assert!(scanner.cookie("loom_session").is_none());
    }
    assert!(app.rows("SELECT * FROM user_sessions").await.is_empty());
    // And the person still gets in.
    let page = person.get(&path).await.expect(200);
    assert_eq!(forms(&page.text).len(), 1);
    let token = token_of(&link);
    person.submit("/auth/magic-link/verify", &[("token", &token)]).await.expect(303);
    assert_eq!(email_of(&person).await.as_deref(), Some("ada@example.com"));
}

#[tokio::test]
async fn a_page_of_another_site_cannot_press_the_button_for_the_person() {
    let (app, smtp) = app().await;
    let person = app.browser();
    person.submit("/auth/magic-link", &[("email", "ada@example.com")]).await.expect(202);
    let (link, code) = link_and_code(&smtp.mail(1).await);
    for foreign in [
        [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
        [("sec-fetch-site", "same-site"), ("origin", "https://evil.example")],
        [("sec-fetch-site", ""), ("origin", "https://evil.example")],
        [("sec-fetch-site", ""), ("origin", "null")],
        [("sec-fetch-site", ""), ("origin", "")],
    ] {
        for proof in [("token", token_of(&link)), ("code", code.clone())] {
            let answer = person
                .submit_with("/auth/magic-link/verify", &[(proof.0, &proof.1)], &foreign)
                .await;
            assert_eq!(answer.status, 403, "{foreign:?}");
        }
    }
    assert!(me(&person).await.is_none());
}
