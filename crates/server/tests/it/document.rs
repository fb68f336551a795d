//! The OpenAPI document, walked operation by operation.

use std::collections::BTreeMap;

use loom_server::{
    commands::openapi_document,
    config::{self, Overrides},
};
use reqwest::Method;
use serde_json::Value;

/// A UUID that nothing has.
pub(crate) const NOBODY: &str = "0199aaaa-0000-7000-8000-00000000dead";

pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) value: Value,
}

impl Operation {
    /// `GET /api/threads/{id}`
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn has_body(&self) -> bool {
        self.value.get("requestBody").is_some()
    }

    /// Does it declare that it needs no credential?
    pub(crate) fn is_public(&self) -> bool {
        self.value["security"] == serde_json::json!([{}])
    }

    /// Its path with ids that nothing has.
    pub(crate) fn some_path(&self) -> String {
        let id = if self.path.starts_with("/api/threads") {
            format!("T-{NOBODY}")
        } else {
            NOBODY.to_owned()
        };
        let path = self
            .path
            .replace("{id}", &id)
            .replace("{org}", NOBODY)
            .replace("{user}", NOBODY)
            .replace("{token}", NOBODY)
            .replace("{project}", NOBODY)
            .replace("{key}", NOBODY)
            .replace("{event}", NOBODY)
            .replace("{issue}", NOBODY)
            .replace("{attachment}", NOBODY)
            .replace("{alert}", NOBODY)
            .replace("{artifact}", NOBODY)
            .replace("{version}", "0.0.0")
            .replace("{provider}", "openai")
            .replace("{name}", "none")
            .replace("{kind}/{subject}", "organisation/all")
            .replace("{seq}", "1")
            .replace("{slug}", "none")
            .replace("{file}", "none.svg")
            // A page of the guide: what is public answers.
            .replace("{path}", "operations");
        assert!(!path.contains('{'), "say here what `{path}` is to be filled with");
        path
    }
}

/// As the `openapi` command prints it.
pub(crate) async fn text() -> String {
    loom_testkit::app::install_crypto();
    let loaded = config::load(BTreeMap::new(), Overrides::default());
    openapi_document(&loaded.config).await.unwrap()
}

pub(crate) async fn json() -> Value {
    serde_json::from_str(&text().await).unwrap()
}

/// All that is documented.
pub(crate) async fn operations() -> Vec<Operation> {
    let document = json().await;
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, value) in methods.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            operations.push(Operation { method, path: path.clone(), value: value.clone() });
        }
    }
    assert!(operations.len() > 20, "the document is not whole");
    operations
}
