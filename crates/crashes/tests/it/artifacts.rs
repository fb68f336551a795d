//! Artifacts over the native routes: what is taken, what is refused, what is left.

use std::time::Duration;

use loom_core::{
    id::ProjectId,
    principal::{OrgRole, Scope},
};
use loom_symbolication::{File, Files, Wanted};
use loom_testkit::{Answer, Caller, Setup, TestApp, User};
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) const DEBUG_ID: &str = "c0bcc3f1-9827-fe65-3058-404b2831d9e6";

pub(crate) async fn project(user: &User, name: &str) -> Value {
    user.post("/api/crash/projects", &json!({"name": name})).await.expect(201).json()
}

pub(crate) fn id_of(project: &Value) -> ProjectId {
    project["id"].as_str().unwrap().parse().unwrap()
}

/// Small, and all that Breakpad wants.
pub(crate) fn symbols(debug_id: &str) -> String {
    let id = debug_id.replace('-', "").to_uppercase();
    format!(
        "MODULE Linux x86_64 {id}0 crash\nINFO CODE_ID f1c3bcc02798fe65\nFILE 0 crash.c\nFUNC 1000 10 0 boom\n1000 10 3 0\nPUBLIC 2000 0 main\n"
    )
}

pub(crate) fn source_map(debug_id: Option<&str>) -> String {
    let mut map = json!({"version": 3, "sources": ["a.ts"], "names": [], "mappings": "AAAA"});
    if let Some(id) = debug_id {
        map["debug_id"] = json!(id);
    }
    map.to_string()
}

/// Posts a form of fields and files: name, name of the file, content.
pub(crate) async fn post_form(
    caller: &Caller,
    path: &str,
    parts: Vec<(&str, Option<&str>, Vec<u8>)>,
) -> Answer {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        let head =
            format!("--b0b\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b0b--\r\n");
    let request = caller.request(Method::POST, path).body(body);
    caller.send(request.header("content-type", "multipart/form-data; boundary=b0b")).await
}

/// Uploads a file with further fields.
pub(crate) async fn upload(
    caller: &Caller,
    project: &str,
    name: &str,
    content: impl Into<Vec<u8>>,
    fields: &[(&str, &str)],
) -> Answer {
    let mut parts = vec![("file", Some(name), content.into())];
    parts.extend(fields.iter().map(|(field, value)| (*field, None, value.as_bytes().to_vec())));
    post_form(caller, &format!("/api/crash/projects/{project}/artifacts"), parts).await
}

/// What symbolication finds.
pub(crate) async fn find(app: &TestApp, project: &Value, wanted: Wanted) -> Option<File> {
    app.running.features.crashes.files().find(id_of(project), &wanted).await.unwrap()
}

/// Files of the object store.
pub(crate) fn objects(app: &TestApp) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut folders = vec![app.data_dir().join("artifacts")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

fn native(debug_id: &str) -> Wanted {
    Wanted::Debug { debug_id: Some(debug_id.to_owned()), code_id: None, symbols: true }
}

#[tokio::test]
async fn a_debug_file_is_taken_listed_found_downloaded_and_deleted() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let shop = project(&ada, "Shop").await;
    let content = symbols(DEBUG_ID);
    let made = upload(&ada, "shop", "crash.sym", content.clone(), &[]).await.expect(201);
    let artifact = made.json();
    assert_eq!(artifact["kind"], "breakpad");
    assert_eq!(artifact["size_bytes"], content.len());
    assert_eq!(artifact["uploaded_by"], "ada@example.com");
    let path = made.header("location").unwrap().to_owned();
    let detail = ada.get(&path).await.expect(200).json();
    assert_eq!(detail["objects"][0]["debug_id"], DEBUG_ID);
    assert_eq!(detail["objects"][0]["arch"], "x86_64");
    assert_eq!(detail["object_count"], 1);
    let list = ada.get("/api/crash/projects/shop/artifacts").await.expect(200).json();
    assert_eq!(list["artifacts"], json!([artifact]));

    let file = find(&app, &shop, native(DEBUG_ID)).await.unwrap();
    assert_eq!(std::fs::read_to_string(&file.path).unwrap(), content);
    assert_eq!(hex::encode(file.digest), artifact["sha256"].as_str().unwrap());
    // As SDKs of old write it, and by what the module calls itself.
    let upper = DEBUG_ID.to_uppercase();
    assert!(find(&app, &shop, native(&upper)).await.is_some());
    let code_id = Some("F1C3BCC02798FE65".to_owned());
    let by_code = Wanted::Debug { debug_id: None, code_id, symbols: true };
    assert_eq!(find(&app, &shop, by_code).await.unwrap().id, file.id);
    assert!(find(&app, &shop, native("00000000-0000-0000-0000-000000000001")).await.is_none());

    let download = ada.get(&format!("{path}/download")).await.expect(200);
    assert_eq!(download.text, content);
    assert_eq!(download.header("content-disposition"), Some("attachment; filename=\"crash.sym\""));
    ada.delete(&path).await.expect(204);
    ada.get(&path).await.expect(404);
    ada.delete(&path).await.expect(404);
    assert!(find(&app, &shop, native(DEBUG_ID)).await.is_none());
}

#[tokio::test]
async fn the_same_content_lies_in_the_store_once_and_for_each_organisation() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let bob = app.user("bob@example.com").await;
    project(&ada, "Shop").await;
    project(&ada, "Till").await;
    project(&bob, "Shop").await;
    let content = symbols(DEBUG_ID);
    let first = upload(&ada, "shop", "a.sym", content.clone(), &[]).await.expect(201).json();
    let again = upload(&ada, "shop", "a.sym", content.clone(), &[]).await.expect(200).json();
    assert_eq!(first["id"], again["id"]);
    upload(&ada, "shop", "b.sym", content.clone(), &[]).await.expect(201);
    upload(&ada, "till", "a.sym", content.clone(), &[]).await.expect(201);
    let refs = app.rows("SELECT refs FROM crash_blobs").await;
    assert_eq!(refs, [json!({"refs": 3})]);
    assert_eq!(objects(&app).len(), 1);
    upload(&bob, "shop", "a.sym", content.clone(), &[]).await.expect(201);
    assert_eq!(objects(&app).len(), 2);
    let refs = app.rows("SELECT refs FROM crash_blobs ORDER BY refs").await;
    assert_eq!(refs, [json!({"refs": 1}), json!({"refs": 3})]);
}

#[tokio::test]
async fn scripts_and_maps_are_found_by_debug_id_and_by_url_of_their_release() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let web = project(&ada, "Web").await;
    let script = format!("x();\n//# sourceMappingURL=app.js.map\n//# debugId={DEBUG_ID}\n");
    let made = upload(&ada, "web", "app.js", script, &[]).await.expect(201).json();
    assert_eq!(made["kind"], "minified_source");
    let made = upload(&ada, "web", "app.js.map", source_map(Some(DEBUG_ID)), &[]).await;
    assert_eq!(made.expect(201).json()["kind"], "source_map");
    for source_map in [false, true] {
        let wanted = Wanted::ScriptById { debug_id: DEBUG_ID.to_owned(), source_map };
        let file = find(&app, &web, wanted).await.unwrap();
        assert_eq!(file.name, if source_map { "app.js.map" } else { "app.js" });
    }
    // Without a debug id, a release and a place are wanted.
    let lost = upload(&ada, "web", "old.js.map", source_map(None), &[]).await.expect(422);
    assert!(lost.text.contains("release"), "{}", lost.text);
    let fields = [("release", "web@1.0"), ("url", "~/static/old.js.map")];
    upload(&ada, "web", "old.js.map", source_map(None), &fields).await.expect(201);
    let fields = [("release", "web@1.0"), ("dist", "7"), ("url", "~/static/old.js.map")];
    let other = source_map(None).replace("a.ts", "seven.ts");
    upload(&ada, "web", "old.js.map", other, &fields).await.expect(201);
    let by_url = async |release: &str, dist: Option<&str>, url: &str| {
        let wanted = Wanted::ScriptByUrl {
            release: release.to_owned(),
            dist: dist.map(str::to_owned),
            url: url.to_owned(),
            source_map: true,
        };
        let file = find(&app, &web, wanted).await?;
        Some(std::fs::read_to_string(file.path).unwrap().contains("seven.ts"))
    };
    let url = "https://shop.example.com/static/old.js.map?v=3";
    assert_eq!(by_url("web@1.0", None, url).await, Some(false));
    assert_eq!(by_url("web@1.0", Some("7"), url).await, Some(true));
    assert_eq!(by_url("web@1.0", Some("8"), url).await, Some(false));
    assert_eq!(by_url("web@2.0", None, url).await, None);
    assert_eq!(by_url("web@1.0", None, "https://shop.example.com/old.js.map").await, None);
}

#[tokio::test]
async fn what_is_no_artifact_or_too_large_is_refused_and_leaves_nothing() {
    let app = Setup::default().set("LOOM_SERVER_ARTIFACTS_MAX_BYTES", "4096").start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    for (name, content) in [
        ("notes.txt", b"hello".to_vec()),
        ("empty.sym", Vec::new()),
        ("cut.so", b"\x7fELF\x02\x01\x01".to_vec()),
        ("no.zip", b"PK\x03\x04 and no more".to_vec()),
        ("SYSB.zip", b"SYSB\x02\0\0\0 and no more".to_vec()),
    ] {
        let refused = upload(&ada, "shop", name, content, &[]).await.expect(422);
        assert_eq!(refused.code(), "invalid_request", "{name}");
    }
    let large = upload(&ada, "shop", "a.sym", vec![b'x'; 5000], &[]).await.expect(413);
    assert_eq!(large.code(), "payload_too_large");
    let plain = ada.post("/api/crash/projects/shop/artifacts", &json!({})).await;
    assert_eq!(plain.expect(415).code(), "unsupported_media_type");
    for (field, value) in [("release", "a/b"), ("kind", "film"), ("dist", "\u{7}")] {
        upload(&ada, "shop", "a.sym", symbols(DEBUG_ID), &[(field, value)]).await.expect(422);
    }
    assert_eq!(objects(&app), Vec::<Vec<u8>>::new());
    assert!(app.rows("SELECT * FROM crash_artifacts").await.is_empty());
    assert!(app.rows("SELECT * FROM crash_blobs").await.is_empty());
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    use tokio::io::AsyncWriteExt;
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    let mut socket = tokio::net::TcpStream::connect(app.running.address).await.unwrap();
    let head = format!(
        "POST /api/crash/projects/shop/artifacts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary=b\r\ncontent-length: 90000000\r\n\r\n--b\r\n\
         content-disposition: form-data; name=\"file\"; filename=\"a.sym\"\r\n\r\n",
        ada.key.as_deref().unwrap()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
    // It has begun to lie there before the client goes away.
    loom_testkit::eventually(async || (!objects(&app).is_empty()).then_some(())).await;
    drop(socket);
    loom_testkit::eventually(async || objects(&app).is_empty().then_some(())).await;
    assert!(app.rows("SELECT * FROM crash_blobs").await.is_empty());
}

#[tokio::test]
async fn a_name_is_shown_and_never_a_path() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    for (sent, stored) in [
        ("../../../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/", "file"),
        ("..", "file"),
    ] {
        let made = upload(&ada, "shop", "x.sym", symbols(DEBUG_ID), &[("name", sent)]).await;
        assert_eq!(made.json()["name"], stored, "{sent}: {}", made.text);
    }
    let outside = app.data_dir().join("../passwd");
    assert!(!outside.exists());
}

#[tokio::test]
async fn a_store_that_takes_nothing_is_a_503_and_nothing_half_is_there() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    // No file can be made below what is one itself.
    std::fs::write(app.data_dir().join("artifacts"), "in the way").unwrap();
    let refused = upload(&ada, "shop", "a.sym", symbols(DEBUG_ID), &[]).await.expect(503);
    assert_eq!(refused.code(), "artifact_store_unavailable");
    assert!(!refused.text.contains("artifacts\""), "{}", refused.text);
    assert!(app.rows("SELECT * FROM crash_artifacts").await.is_empty());
    std::fs::remove_file(app.data_dir().join("artifacts")).unwrap();
    upload(&ada, "shop", "a.sym", symbols(DEBUG_ID), &[]).await.expect(201);
}

#[tokio::test]
async fn the_same_script_at_a_second_address_is_found_at_both() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let shop = project(&ada, "Shop").await;
    let urls = ["~/static/app.js", "https://cdn.example.com/app.js"];
    let mut ids = Vec::new();
    for (url, status) in urls.into_iter().zip([201, 200]).chain([(urls[1], 200)]) {
        let fields = [("release", "1.0"), ("url", url)];
        let made = upload(&ada, "shop", "app.js", "boom();\n", &fields).await.expect(status);
        ids.push(made.json()["id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    for url in urls {
        let wanted = Wanted::ScriptByUrl {
            release: "1.0".to_owned(),
            dist: None,
            url: url.to_owned(),
            source_map: false,
        };
        assert!(find(&app, &shop, wanted).await.is_some(), "{url}");
    }
    let path = format!("/api/crash/projects/shop/artifacts/{}", ids[0].as_str().unwrap());
    assert_eq!(ada.get(&path).await.expect(200).json()["object_count"], 2);
}

#[tokio::test]
async fn replicas_share_the_store() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let shop = project(&ada, "Shop").await;
    let replica = app.replica().await;
    upload(&ada.at(&replica), "shop", "a.sym", symbols(DEBUG_ID), &[]).await.expect(201);
    assert!(find(&app, &shop, native(DEBUG_ID)).await.is_some());
    replica.shut_down().await;
}

#[tokio::test]
async fn members_upload_and_read_admins_download_and_delete() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    let grace = app.user("grace@example.com").await;
    app.join(grace.id, ada.org, OrgRole::Member).await;
    project(&ada, "Shop").await;
    let member = grace.with("x-loom-org", &ada.org.to_string());
    let made = upload(&member, "shop", "a.sym", symbols(DEBUG_ID), &[]).await.expect(201);
    let path = made.header("location").unwrap().to_owned();
    member.get(&path).await.expect(200);
    member.get(&format!("{path}/download")).await.expect(403);
    member.delete(&path).await.expect(403);
    let reader = app.with_scopes(&ada, &[Scope::CrashesRead]).await;
    reader.get(&path).await.expect(200);
    upload(&reader, "shop", "b.sym", symbols(DEBUG_ID), &[]).await.expect(403);
    let other = app.with_scopes(&ada, &[Scope::ThreadsRead]).await;
    other.get(&path).await.expect(403);
}

#[tokio::test]
async fn the_list_is_filtered_and_paged() {
    let app = TestApp::start().await;
    let ada = app.user("ada@example.com").await;
    project(&ada, "Shop").await;
    for n in 0..3 {
        let id = format!("00000000-0000-0000-0000-00000000000{}", n + 1);
        upload(&ada, "shop", &format!("{n}.sym"), symbols(&id), &[]).await.expect(201);
    }
    let fields = [("release", "1.0"), ("url", "~/a.js.map")];
    upload(&ada, "shop", "a.js.map", source_map(None), &fields).await.expect(201);
    let names = async |query: &str| {
        let page = ada.get(&format!("/api/crash/projects/shop/artifacts?{query}")).await;
        let page = page.expect(200).json();
        let names: Vec<_> =
            page["artifacts"].as_array().unwrap().iter().map(|a| a["name"].clone()).collect();
        (json!(names), page["next_cursor"].as_str().map(str::to_owned))
    };
    assert_eq!(names("release=1.0").await.0, json!(["a.js.map"]));
    assert_eq!(names("kind=source_map").await.0, json!(["a.js.map"]));
    assert_eq!(names("debug_id=00000000000000000000000000000002").await.0, json!(["1.sym"]));
    let (first, next) = names("limit=3").await;
    assert_eq!(first, json!(["a.js.map", "2.sym", "1.sym"]));
    let next = next.unwrap();
    assert_eq!(names(&format!("limit=3&cursor={next}")).await, (json!(["0.sym"]), None));
    // The cursor of another list is none of this.
    let other = format!("/api/crash/projects/shop/artifacts?kind=elf&cursor={next}");
    assert_eq!(ada.get(&other).await.expect(400).code(), "invalid_cursor");
}

#[tokio::test]
async fn what_is_not_used_goes_after_its_retention_and_its_content_with_it() {
    let app = Setup::default()
        .manual_clock()
        .set("LOOM_SERVER_ARTIFACTS_RETENTION_DAYS", "10")
        .start()
        .await;
    let ada = app.user("ada@example.com").await;
    let shop = project(&ada, "Shop").await;
    let used = "00000000-0000-0000-0000-000000000001";
    upload(&ada, "shop", "unused.sym", symbols(DEBUG_ID), &[]).await.expect(201);
    upload(&ada, "shop", "used.sym", symbols(used), &[]).await.expect(201);
    let clean = async || {
        app.running.features.jobs.run_now("artifact-cleanup").await.unwrap();
    };
    app.clock.advance(Duration::from_secs(9 * 86_400));
    assert!(find(&app, &shop, native(used)).await.is_some());
    clean().await;
    assert_eq!(app.rows("SELECT id FROM crash_artifacts").await.len(), 2);
    app.clock.advance(Duration::from_secs(2 * 86_400));
    clean().await;
    assert_eq!(app.rows("SELECT name FROM crash_artifacts").await, [json!({"name": "used.sym"})]);
    assert_eq!(objects(&app), [symbols(used).into_bytes()]);
    // A project that goes takes its own with it.
    sqlx::query("DELETE FROM crash_projects").execute(app.database.pool()).await.unwrap();
    app.clock.advance(Duration::from_secs(2 * 86_400));
    clean().await;
    assert_eq!(objects(&app), Vec::<Vec<u8>>::new());
    assert!(app.rows("SELECT * FROM crash_loose_objects").await.is_empty());
}
