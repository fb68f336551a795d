//! Who sees what, and who may change it.

use http::StatusCode;
use loom_core::principal::{OrgRole, Scope};
use serde_json::{Value, json};

use crate::harness::{App, Call, Person, thread};

fn with_visibility(visibility: &str) -> Value {
    json!({ "visibility": visibility, "title": "mine", "messages": [{ "id": "a", "role": "user", "content": "secret" }] })
}

/// Every way to change a thread.
fn changes(person: &Person<'_>, id: &str) -> [Call; 4] {
    [
        person.put(id, &thread(&["taken"])).if_match("*"),
        person.patch(id, &json!({ "title": "taken" })),
        person.append(id, &thread(&["taken"])),
        person.delete(id),
    ]
}

async fn expect_all(calls: [Call; 4], status: StatusCode, code: &str) {
    for call in calls {
        call.await.expect_problem(status, code);
    }
}

#[tokio::test]
async fn another_organisation_finds_nothing_and_changes_nothing() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let owner_elsewhere = app.member(app.organisation().await, OrgRole::Owner).await;
    let service_elsewhere = app.service(owner_elsewhere.org());
    for visibility in ["private", "organization"] {
        let id = ann.creates(&with_visibility(visibility)).await;
        let before = ann.read(&id).await;
        for other in [&owner_elsewhere, &service_elsewhere] {
            other.read(&id).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
            expect_all(changes(other, &id), StatusCode::NOT_FOUND, "not_found").await;
            let problem = other.put(&id, &thread(&["taken"])).await;
            problem.expect_problem(StatusCode::NOT_FOUND, "not_found");
            assert!(other.lists("").await.is_empty());
        }
        assert_eq!(ann.read(&id).await.text, before.text);
    }
}

#[tokio::test]
async fn a_public_thread_is_read_everywhere_and_changed_at_home() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let bob = app.somebody().await;
    let id = ann.creates(&with_visibility("public")).await;
    let read = bob.read(&id).await.expect(StatusCode::OK);
    assert_eq!(read.places().len(), 1);
    assert!(bob.lists("").await.is_empty(), "a list shows one's own organisation");
    expect_all(changes(&bob, &id), StatusCode::NOT_FOUND, "not_found").await;
    let colleague = app.member(ann.org(), OrgRole::Member).await;
    assert_eq!(colleague.lists("").await, [id.as_str()]);
    expect_all(changes(&colleague, &id), StatusCode::FORBIDDEN, "forbidden").await;
    assert_eq!(ann.read(&id).await.text, read.text);
}

#[tokio::test]
async fn a_private_thread_is_its_owners_alone() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&with_visibility("private")).await;
    let colleague = app.member(ann.org(), OrgRole::Member).await;
    let admin = app.member(ann.org(), OrgRole::Admin).await;
    let service = app.service(ann.org());
    for other in [&colleague, &admin, &service] {
        other.read(&id).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
        expect_all(changes(other, &id), StatusCode::NOT_FOUND, "not_found").await;
        assert!(other.lists("").await.is_empty());
    }
    assert_eq!(ann.lists("").await, [id]);
}

#[tokio::test]
async fn a_thread_shared_with_the_organisation_is_read_by_all_and_changed_by_few() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&with_visibility("organization")).await;
    let colleague = app.member(ann.org(), OrgRole::Member).await;
    let admin = app.member(ann.org(), OrgRole::Admin).await;
    for other in [&colleague, &admin] {
        other.read(&id).await.expect(StatusCode::OK);
        assert_eq!(other.lists("").await, [id.as_str()]);
    }
    expect_all(changes(&colleague, &id), StatusCode::FORBIDDEN, "forbidden").await;
    let patched = admin.patch(&id, &json!({ "title": "moderated" })).await.expect(StatusCode::OK);
    assert_eq!(patched.body["owner_user_id"], ann.user_id());
}

#[tokio::test]
async fn the_organisations_own_threads_are_its_services_and_admins() {
    let app = App::start().await;
    let admin = app.member(app.organisation().await, OrgRole::Admin).await;
    let member = app.member(admin.org(), OrgRole::Member).await;
    let (service, other_service) = (app.service(admin.org()), app.service(admin.org()));
    let id = service.creates(&with_visibility("private")).await;
    assert_eq!(service.read(&id).await.body["owner_user_id"], json!(null));
    for keeper in [&service, &other_service, &admin] {
        assert_eq!(keeper.lists("").await, [id.as_str()]);
        keeper
            .patch(&id, &json!({ "title": keeper.principal.name.as_ref() }))
            .await
            .expect(StatusCode::OK);
    }
    member.read(&id).await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    assert!(member.lists("").await.is_empty());
    service.patch(&id, &json!({ "visibility": "organization" })).await.expect(StatusCode::OK);
    for reader in [&service, &admin, &member] {
        assert_eq!(reader.lists("").await, [id.as_str()], "once, though it is shared too");
    }
}

#[tokio::test]
async fn each_route_asks_for_its_scope() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let id = ann.creates(&thread(&["a"])).await;
    let reader = ann.with_scopes(&[Scope::ThreadsRead]);
    reader.read(&id).await.expect(StatusCode::OK);
    reader.get("/api/threads").await.expect(StatusCode::OK);
    expect_all(changes(&reader, &id), StatusCode::FORBIDDEN, "forbidden").await;
    let writer = ann.with_scopes(&[Scope::ThreadsWrite]);
    for read in [writer.read(&id), writer.get("/api/threads")] {
        read.await.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    }
    writer.append(&id, &thread(&["b"])).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn nobody_gets_in_without_a_credential() {
    let app = App::start().await;
    let nobody = app.anonymous();
    let id = app.new_thread_id();
    expect_all(changes(&nobody, &id), StatusCode::UNAUTHORIZED, "unauthenticated").await;
    for read in [nobody.read(&id), nobody.get("/api/threads")] {
        read.await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
}

/// What a search tells of the word: hits, their number, and how many values the facets have.
async fn found(person: &Person<'_>, q: &str) -> (usize, u64, usize) {
    let page = person.search(q, "").await;
    let facets = page.body["facets"].as_object().unwrap();
    let values = facets.values().map(|values| values.as_array().unwrap().len()).sum();
    (page.body["hits"].as_array().unwrap().len(), page.body["total"].as_u64().unwrap(), values)
}

#[tokio::test]
async fn a_search_tells_only_what_one_may_see() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let colleague = app.member(ann.org(), OrgRole::Member).await;
    let admin = app.member(ann.org(), OrgRole::Admin).await;
    let service = app.service(ann.org());
    let elsewhere = app.somebody().await;
    let everybody = [&ann, &colleague, &admin, &service, &elsewhere];
    let thread = |visibility: &str, word: &str| {
        json!({
            "visibility": visibility, "title": format!("{word}title"), "tags": [format!("{word}tag")],
            "git": { "branch": format!("{word}branch"), "remote_url": format!("git.example.com/o/{word}repo"),
                     "commits": ["abcdef0123456789"] },
            "messages": [{ "role": "user", "content": format!("the {word} word, {word}_identifier") }],
        })
    };
    let private = ann.creates(&thread("private", "yew")).await;
    ann.creates(&thread("organization", "oak")).await;
    ann.creates(&thread("public", "elm")).await;
    service.creates(&thread("private", "ash")).await;
    for (words, who) in [
        (
            ["yew", "yewtitle", "yewtag", "yewbranch", "yewrepo", "yewtitel"],
            [true, false, false, false, false],
        ),
        (
            ["oak", "oaktitle", "oaktag", "oakbranch", "oakrepo", "oaktitel"],
            [true, true, true, true, false],
        ),
        (
            ["elm", "elmtitle", "elmtag", "elmbranch", "elmrepo", "elmtitel"],
            [true, true, true, true, false],
        ),
        (
            ["ash", "ashtitle", "ashtag", "ashbranch", "ashrepo", "ashtitel"],
            [false, false, true, true, false],
        ),
    ] {
        for word in words {
            for (person, sees) in everybody.iter().zip(who) {
                let (hits, total, values) = found(person, word).await;
                assert_eq!(
                    (hits, total, values > 0),
                    (usize::from(sees), u64::from(sees), sees),
                    "{word}"
                );
            }
        }
    }
    // A commit is no way around it.
    for (person, threads) in everybody.iter().zip([3, 2, 3, 3, 0]) {
        assert_eq!(found(person, "abcdef0").await.0, threads);
    }
    // Nor what was private when it was written, and the other way about.
    ann.patch(&private, &json!({ "visibility": "organization" })).await.expect(StatusCode::OK);
    assert_eq!(found(&colleague, "yew").await.0, 1);
    ann.patch(&private, &json!({ "visibility": "private" })).await.expect(StatusCode::OK);
    assert_eq!(found(&colleague, "yew").await, (0, 0, 0));
    ann.get("/api/threads/search?q=yew&owner=me").await.expect(StatusCode::OK);
    let writer = ann.with_scopes(&[Scope::ThreadsWrite]);
    writer
        .get("/api/threads/search?q=yew")
        .await
        .expect_problem(StatusCode::FORBIDDEN, "forbidden");
}

#[tokio::test]
async fn what_one_may_not_see_takes_no_place_among_what_is_looked_at() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let bob = app.member(ann.org(), OrgRole::Member).await;
    let mine = bob.creates(&thread(&["the common word"])).await;
    app.advance(1_000);
    let many: Vec<Value> = (0..2_100)
        .map(|n| json!({ "role": "user", "content": format!("text common {n}") }))
        .collect();
    ann.creates(&json!({ "messages": many })).await;
    let page = bob.search("common ", "").await;
    assert_eq!(page.body["hits"][0]["thread"]["id"], mine.as_str());
    assert_eq!((&page.body["total"], &page.body["total_is_partial"]), (&json!(1), &json!(false)));
}
