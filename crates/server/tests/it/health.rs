//! Health, readiness and metrics.

use loom_testkit::TestApp;

#[tokio::test]
async fn a_sound_server_is_healthy_live_and_ready() {
    let app = TestApp::start().await;
    let caller = app.anonymous();
    let health = caller.get("/health").await.expect(200).json();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["components"]["database"]["status"], "healthy");
    assert_eq!(health["components"]["llm_providers"]["providers"]["openai"]["status"], "healthy");
    assert_eq!(health["components"]["docs_index"]["status"], "healthy");
    assert!(health["version"]["git_sha"].is_string());
    caller.get("/health/live").await.expect(204);
    caller.get("/health/ready").await.expect(200);
}

#[tokio::test]
async fn metrics_name_routes_by_their_template() {
    let app = TestApp::start().await;
    let caller = app.anonymous();
    caller.get("/api/threads/T-0199aaaa-0000-7000-8000-000000000000").await.expect(401);
    let metrics = caller.get("/metrics").await.expect(200);
    let line = r#"loom_http_requests_total{method="GET",route="/api/threads/{id}",status="401"}"#;
    assert!(metrics.text.contains(line), "{}", metrics.text);
    assert!(metrics.text.contains("loom_db_connections "), "{}", metrics.text);
}
