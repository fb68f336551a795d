//! The dashboard's page, as it is served.

use loom_testkit::TestApp;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test]
async fn a_browser_gets_the_page_at_its_addresses_and_everybody_else_the_problem() {
    let app = TestApp::start().await;
    let browser = app.anonymous().with("accept", BROWSER);
    for path in ["/", "/jobs", "/crashes/shop/issues/SHOP-1?tab=tags"] {
        let page = browser.get(path).await.expect(200);
        assert!(page.header("content-type").unwrap().starts_with("text/html"), "{path}");
        assert!(page.text.contains("Loom"), "{path}");
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        app.anonymous().get(path).await.expect(404);
    }
    for path in ["/api/none", "/v1/none", "/auth/none", "/assets/none.js"] {
        let problem = browser.get(path).await;
        assert!(problem.status.is_client_error() && !problem.text.contains("<html"), "{path}");
    }
    browser.post("/", &serde_json::json!({})).await.expect(404);
    app.stop().await;
}

#[tokio::test]
async fn the_files_of_the_page_are_kept_for_ever_and_asked_for_by_their_tag() {
    if !loom_dashboard::is_built() {
        return;
    }
    let app = TestApp::start().await;
    let browser = app.anonymous().with("accept", BROWSER);
    let page = browser.get("/").await.expect(200);
    let script =
        page.text.split('"').find(|part| part.starts_with("/assets/") && part.ends_with(".js"));
    let script = browser.get(script.expect("a script")).await.expect(200);
    assert!(script.header("content-type").unwrap().contains("javascript"));
    assert!(script.header("cache-control").unwrap().contains("immutable"));
    let tag = page.header("etag").unwrap();
    browser.with("if-none-match", tag).get("/").await.expect(304);
    app.stop().await;
}
