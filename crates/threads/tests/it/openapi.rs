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
            // The token in its path is the key.
            let open =
                if name == "get_shared_thread" { json!([{}]) } else { json!([{ "api_key": [] }]) };
            assert_eq!(operation["security"], open, "{name}");
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
        "/api/orgs/{org}/threads/settings get_thread_settings",
        "/api/orgs/{org}/threads/settings put_thread_settings",
        "/api/threads list_threads",
        "/api/threads/events watch_threads",
        "/api/threads/import import_threads",
        "/api/threads/search search_threads",
        "/api/threads/shared/{token} get_shared_thread",
        "/api/threads/{id} delete_thread",
        "/api/threads/{id} get_thread",
        "/api/threads/{id} patch_thread",
        "/api/threads/{id} put_thread",
        "/api/threads/{id}/deltas write_delta",
        "/api/threads/{id}/events watch_thread",
        "/api/threads/{id}/export export_thread",
        "/api/threads/{id}/lease lease_thread",
        "/api/threads/{id}/lease release_thread",
        "/api/threads/{id}/messages append_messages",
        "/api/threads/{id}/messages/{seq} get_message",
        "/api/threads/{id}/restore restore_thread",
        "/api/threads/{id}/share preview_share",
        "/api/threads/{id}/share share_thread",
        "/api/threads/{id}/share unshare_thread",
    ];
    assert_eq!(operations, expected);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in
        ["Thread", "ThreadHead", "ThreadDraft", "ThreadPatch", "Append", "Message", "Problem"]
    {
        assert!(schemas.contains_key(name), "{name}");
    }
}
