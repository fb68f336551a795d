//! A real browser signs in. Without one on this machine there is nothing to show; `LOOM_TEST_CHROMIUM`
//! names one that must be there.

use loom_testkit::{
    chromium::{self, Chromium},
    idp::Idp,
    smtp::SmtpServer,
};

use super::{ada, link_and_code, open, with};

#[tokio::test(flavor = "multi_thread")]
async fn chromium_signs_in_by_mail_and_by_github_sees_its_sessions_and_ends_one() {
    let Some(program) = chromium::find() else {
        eprintln!("no Chromium here: not shown with a real browser");
        return;
    };
    let (smtp, idp) = (SmtpServer::start(), Idp::start());
    idp.sign_in_as(ada());
    let app = with(with(open(), smtp.settings()), idp.settings("github")).start().await;
    let url = format!("http://localhost:{}", app.running.address.port());
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut browser = Chromium::start(&program);
        let (desk, phone) = (browser.tab(), browser.tab());

        // By mail; the link opened elsewhere shows the code and signs nobody in.
        browser.open(&desk, &format!("{url}/account"));
        browser.until_heading(&desk, "Sign in");
        browser.type_into(&desk, "#email", "ada@example.com");
        browser.click(&desk, "form button");
        browser.until_heading(&desk, "Look at your mail");
        let (link, code) = link_and_code(&runtime.block_on(smtp.mail(1)));
        browser.open(&phone, &link);
        browser.until_heading(&phone, "Type this code where you began");
        assert!(browser.text(&phone).contains(&code));
        browser.open(&phone, &format!("{url}/account"));
        browser.until_heading(&phone, "Sign in");
        browser.open(&desk, &link);
        browser.until_heading(&desk, "Sign in as ada@example.com?");
        browser.click(&desk, "form button");
        browser.until_heading(&desk, "Your account");

        // By GitHub in the other one, which links by the address that both sides have verified.
        browser.click(&phone, "a[href^='/auth/login/github']");
        browser.until_heading(&phone, "Your account");

        // The first sees both, and ends the second.
        browser.open(&desk, &format!("{url}/account"));
        browser.until(&desk, "document.querySelectorAll(\"form[action$='/end']\").length === 1");
        let text = browser.text(&desk);
        assert!(text.contains("by GitHub") && text.contains("by e-mail"), "{text}");
        browser.click(&desk, "form[action$='/end'] button");
        browser.until(&desk, "document.querySelectorAll(\"form[action$='/end']\").length === 0");
        browser.open(&phone, &format!("{url}/account"));
        browser.until_heading(&phone, "Sign in");

        // Connecting leads over the provider and back, although a form may lead to us only.
        browser.click(&desk, "form[action$='/disconnect'] button");
        browser.until(&desk, "document.querySelector(\"form[action$='/disconnect']\") === null");
        browser.click(&desk, "form[action='/account/connect/github'] button");
        browser.until(&desk, "document.querySelector(\"form[action$='/disconnect']\") !== null");

        // And out.
        browser.click(&desk, "form[action='/account/sign-out'] button");
        browser.until_heading(&desk, "Sign in");
        browser.open(&desk, &format!("{url}/account"));
        browser.until_heading(&desk, "Sign in");
    })
    .await
    .unwrap();
}
