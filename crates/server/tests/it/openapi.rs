//! The OpenAPI document: complete, and the committed copy is what the server says.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    document::{json, operations, text},
    metrics::files,
};

const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "this is how one asks for the copy to be written")]
async fn the_copy_in_docs_is_what_the_server_says() {
    let said = text().await + "\n";
    if std::env::var("UPDATE_SNAPSHOTS").is_ok_and(|value| value == "1") {
        std::fs::write(COPY, &said).unwrap();
    }
    let copy = std::fs::read_to_string(COPY).unwrap_or_default();
    // Not assert_eq: nobody reads two whole documents.
    let differs = copy.lines().zip(said.lines()).find(|(copy, said)| copy != said);
    assert!(
        copy == said,
        "docs/openapi.json is not what the server says (first difference: {differs:?}); \
         `UPDATE_SNAPSHOTS=1 cargo nextest run openapi` writes it"
    );
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_names_the_credential() {
    let document = json().await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document["info"]["title"], "Loom");
    assert_eq!(document["components"]["securitySchemes"]["api_key"]["scheme"], "bearer");
}

#[tokio::test]
async fn operation_ids_are_unique() {
    let mut ids = BTreeSet::new();
    for operation in operations().await {
        let id = operation.value["operationId"].as_str().unwrap_or_default().to_owned();
        assert!(!id.is_empty(), "{} has no id", operation.name());
        assert!(ids.insert(id), "{} has the id of another operation", operation.name());
    }
}

#[tokio::test]
async fn every_operation_is_described() {
    for operation in operations().await {
        let (name, value) = (operation.name(), &operation.value);
        let summary = value["summary"].as_str().unwrap_or_default();
        assert!(summary.len() > 5, "{name} has no summary");
        assert_eq!(value["tags"].as_array().map(Vec::len), Some(1), "{name} has not one tag");
        let security = value["security"].as_array();
        assert!(security.is_some_and(|s| !s.is_empty()), "{name} does not declare its security");
        let statuses: Vec<&str> =
            value["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        // What is for browsers alone leads on; a WebSocket begins with 101.
        let success = |status: &&str| status.starts_with(['2', '3']) || **status == *"101";
        assert!(statuses.iter().any(success), "{name} documents no success");
        if operation.has_body() {
            let told = statuses.iter().any(|status| matches!(*status, "400" | "422"));
            assert!(told, "{name} takes a body and does not document what is wrong with one");
        }
    }
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let document = json().await;
    let text = document.to_string();
    let mut references = BTreeSet::new();
    for piece in text.split("\"$ref\":\"#").skip(1) {
        references.insert(piece.split('"').next().unwrap().to_owned());
    }
    assert!(references.contains("/components/schemas/Problem"), "{references:?}");
    for reference in &references {
        assert!(document.pointer(reference).is_some(), "{reference} leads nowhere");
    }
}

#[tokio::test]
async fn a_running_server_gives_the_same_document_out_and_a_page_to_browse_it() {
    let app = loom_testkit::TestApp::start().await;
    let caller = app.anonymous();
    let answer = caller.get("/api/openapi.json").await.expect(200);
    assert_eq!(answer.json(), json().await);
    let page = caller.get("/api").await.expect(200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    // The page loads nothing from elsewhere.
    assert_eq!(
        page.header("content-security-policy"),
        Some("default-src 'self'; frame-ancestors 'none'")
    );
    for (path, kind) in [("/api/page.js", "text/javascript"), ("/api/page.css", "text/css")] {
        let part = caller.get(path).await.expect(200);
        assert!(part.header("content-type").unwrap().starts_with(kind));
        assert!(page.text.contains(path), "{path} is not used by the page");
    }
}

/// Of two forms with one name, the document would have one, in the places of both.
#[test]
fn no_two_forms_have_the_same_name() {
    let mut names = BTreeMap::new();
    for (path, text) in files("crates") {
        for name in forms(&text) {
            if let Some(other) = names.insert(name.clone(), path.clone()) {
                panic!("`{name}` is in {} and in {}", path.display(), other.display());
            }
        }
    }
    assert!(names.len() > 100, "they are found: {}", names.len());
}

/// What the types of a file that derive `ToSchema` are called in the document.
fn forms(text: &str) -> Vec<String> {
    let word = |text: &str| text.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
    let mut names = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line.starts_with("#[derive(") && line.contains("ToSchema")) {
        let mut renamed = None;
        for line in lines.by_ref() {
            if let Some((_, name)) = line.split_once("as = ").filter(|_| line.contains("schema(")) {
                renamed = Some(word(name));
            }
            let kind = ["struct ", "enum "].iter().find_map(|kind| line.split_once(kind));
            if let Some((_, name)) = kind.filter(|_| !line.starts_with(['/', '#', ' '])) {
                names.push(renamed.unwrap_or_else(|| word(name)));
                break;
            }
        }
    }
    names
}
