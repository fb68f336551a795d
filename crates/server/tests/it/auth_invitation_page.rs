//! The link in an invitation's mail, as somebody without a client of the API follows it.

use loom_testkit::{Setup, smtp::SmtpServer};
use serde_json::json;

#[tokio::test]
async fn the_link_leads_to_sign_in_then_to_a_button_that_joins() {
    let smtp = SmtpServer::start();
    let settings = smtp.settings().into_iter();
    let setup = settings.fold(Setup::default(), |setup, (name, value)| setup.set(name, value));
    let app = setup.start().await;
    let (ada, bob) = (app.user("ada@example.com").await, app.user("bob@example.com").await);
    let cleo = app.user("cleo@example.com").await;
    let new = json!({"slug": "engines", "name": "<b>Engines</b>"});
    let team = ada.post("/api/orgs", &new).await.expect(201).json()["id"].clone();
    let team = team.as_str().unwrap();
    let invitation = json!({"email": "bob@example.com", "role": "admin"});
    let path = format!("/api/orgs/{team}/invitations");
    ada.post(&path, &invitation).await.expect(201);
    let mail = smtp.mail(1).await.text();
    let at = mail.find("/invitations/accept?token=").unwrap();
    let link: String = mail[at..].chars().take_while(|c| !c.is_whitespace()).collect();
    let token = link.split_once('=').unwrap().1.to_owned();

    let page = app.anonymous().get(&link).await.expect(200);
    assert!(page.text.contains("name=\"redirect\""), "{}", page.text);
    assert!(cleo.get(&link).await.expect(403).text.contains("sent to another address"));
    // To look changes nothing, however often.
    for _ in 0..2 {
        let page = bob.get(&link).await.expect(200).text;
        assert!(page.contains("ada@example.com") && page.contains("as an admin"), "{page}");
        assert!(page.contains("&lt;b&gt;Engines") && !page.contains("<b>Engines"), "{page}");
    }
    bob.get(&format!("/auth/me?org={team}")).await.expect(404);
    let join = async |who: &loom_testkit::Caller| {
        let request = who.request(reqwest::Method::POST, "/invitations/accept");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        who.send(request.body(format!("token={token}"))).await
    };
    join(&app.anonymous()).await.expect(401);
    join(&cleo).await.expect(403);
    assert!(join(&bob).await.expect(200).text.contains("x-loom-org: engines"));
    assert_eq!(bob.get(&format!("/auth/me?org={team}")).await.expect(200).json()["role"], "admin");
    join(&bob).await.expect(404);
    bob.get(&link).await.expect(404);
    // The mail alone has the token.
    let stored =
        serde_json::to_string(&app.rows("SELECT * FROM organisation_invitations").await).unwrap();
    assert!(!stored.contains(&token));
}
