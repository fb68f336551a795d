//! The OpenAPI document of the routes.

use loom_core::Clock;
use serde_json::json;
use sqlx::postgres::PgPoolOptions;

use crate::harness::threads;

#[tokio::test]
async fn every_operation_is_documented_and_asks_for_a_key() {
    let pool = PgPoolOptions::new().connect_lazy("postgres://localhost/none").unwrap();
    let (_, document) = threads(pool, Clock::system()).routes().split_for_parts();
    let document = serde_json::to_value(document).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            let name = operation["operationId"].as_str().unwrap();
            assert_eq!(operation["security"], json!([{ "api_key": [] }]), "{name}");
            assert_eq!(operation["tags"], json!(["threads"]), "{name}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let is_problem = response["content"].get("application/problem+json").is_some();
                assert_eq!(is_problem, status.starts_with(['4', '5']), "{name} {status}");
            }
            operations.push(format!("{path} {name}"));
        }
    }
    operations.sort();
    let expected = [
        "/api/threads list_threads",
        "/api/threads/search search_threads",
        "/api/threads/{id} delete_thread",
        "/api/threads/{id} get_thread",
        "/api/threads/{id} patch_thread",
        "/api/threads/{id} put_thread",
        "/api/threads/{id}/messages append_messages",
    ];
    assert_eq!(operations, expected);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in
        ["Thread", "ThreadHead", "ThreadDraft", "ThreadPatch", "Append", "Message", "Problem"]
    {
        assert!(schemas.contains_key(name), "{name}");
    }
}
