//! What is malformed, too much, or broken off.

use std::io::Write;

use loom_testkit::{Setup, eventually};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{World, git, noise, processes_in};

const PUSH: &str = "application/x-git-receive-pack-request";
const FETCH: &str = "application/x-git-upload-pack-request";

/// A request as it is written, without anything that a client library would tidy up.
async fn raw(world: &World, head: &str) -> String {
    let mut socket = TcpStream::connect(world.app.running.address).await.unwrap();
    let key = world.ada.key.as_ref().unwrap();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn no_path_leads_out_of_the_repositories() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let (org, id) = (world.ada.org, made["id"].as_str().unwrap());
    let query = "info/refs?service=git-upload-pack";
    assert!(
        raw(&world, &format!("GET /git/{org}/engine.git/{query}"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    for path in [
        format!("{org}/../{org}/{id}.git"),
        format!("{org}/%2e%2e%2f{org}%2f{id}.git"),
        format!("{org}/..%2f..%2fetc"),
        format!("{org}/..;/engine.git"),
        format!("{org}/.git"),
        format!("{org}/engine.git.git"),
        format!("{org}/engine%00.git"),
        format!("{org}/engine.git%2fconfig"),
        format!("{org}/e%6egine%c3%a4"),
        format!("{org}/%ff%fe"),
        format!("{org}/-engine"),
        format!("{org}/--upload-pack=x"),
        format!("%2e%2e/{org}"),
        "%00/engine.git".to_owned(),
        "../engine.git".to_owned(),
        format!("u-{}%27--/engine.git", "x".repeat(80)),
    ] {
        let answer = raw(&world, &format!("GET /git/{path}/{query}")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    // Files that the dumb protocol would fetch.
    for file in [
        "HEAD",
        "config",
        "objects/info/packs",
        "info/refs",
        "info/refs?service=git-archive",
        "../../../etc/passwd",
    ] {
        let answer = raw(&world, &format!("GET /git/{org}/engine.git/{file}")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{file}: {answer}");
    }
}

#[tokio::test]
async fn a_push_that_is_too_large_is_refused_in_words_that_git_shows() {
    let world =
        World::with(Setup::default().set("LOOM_SERVER_SCM_MAX_PUSH_BYTES", "1000000")).await;
    let made = world.create("engine").await;
    let url = world.own("engine.git");
    world.work("first", &url).await;
    let small = world.git("first", &["rev-parse", "HEAD"]).await.expect();
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    world.commit("first", "big.bin", &noise(5_000_000, 1)).await;
    world
        .git("first", &["push", "origin", "main"])
        .await
        .refused("pack exceeds maximum allowed size");
    assert_eq!(git(&world.bare(&made), &["rev-parse", "main"]).await.expect(), small);
    // It did no harm.
    world.git("first", &["reset", "-q", "--hard", "HEAD^"]).await.expect();
    world.commit("first", "b.txt", b"two").await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    git(&world.bare(&made), &["fsck", "--full"]).await.expect();
}

#[tokio::test]
async fn a_full_repository_takes_no_more_but_lets_branches_be_deleted() {
    let setup = Setup::default().set("LOOM_SERVER_SCM_MAX_REPOSITORY_BYTES", "300000");
    let world = World::with(setup).await;
    world.create("engine").await;
    let url = world.own("engine.git");
    world.work("first", &url).await;
    world.commit("first", "big.bin", &noise(200_000, 1)).await;
    world.git("first", &["push", "-q", "origin", "main", "main:old"]).await.expect();
    world.commit("first", "big.bin", &noise(200_000, 2)).await;
    world
        .git("first", &["push", "origin", "main"])
        .await
        .refused("pack exceeds maximum allowed size");
    world.git("first", &["push", "-q", "origin", ":old"]).await.expect();
}

#[tokio::test]
async fn what_a_repository_may_not_hold_is_refused() {
    let world = World::new().await;
    world.create("engine").await;
    let url = world.own("engine.git");
    world.work("first", &url).await;
    // A tree with an entry that would leave the working directory.
    let blob = world.git("first", &["rev-parse", "HEAD:a.txt"]).await.expect();
    let bytes: Vec<u8> =
        (0..40).step_by(2).map(|at| u8::from_str_radix(&blob[at..at + 2], 16).unwrap()).collect();
    let tree = [&b"100644 ..\0"[..], &bytes].concat();
    std::fs::write(world.path("tree"), tree).unwrap();
    let tree = world
        .git("first", &["hash-object", "-t", "tree", "--literally", "-w", "../tree"])
        .await
        .expect();
    let commit = world.git("first", &["commit-tree", "-m", "evil", &tree]).await.expect();
    world
        .git("first", &["push", "origin", &format!("{commit}:refs/heads/evil")])
        .await
        .refused("hasDotdot");
}

/// Repetitions of one piece as gzip.
fn gzip(first: &[u8], piece: &[u8], len: usize) -> Vec<u8> {
    let pipe = std::process::Stdio::piped;
    let mut child =
        std::process::Command::new("gzip").arg("-c").stdin(pipe()).stdout(pipe()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (first, piece) = (first.to_vec(), piece.to_vec());
    let writer = std::thread::spawn(move || {
        stdin.write_all(&first).unwrap();
        for _ in 0..len / piece.len() {
            stdin.write_all(&piece).unwrap();
        }
    });
    let packed = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    packed
}

#[tokio::test]
async fn a_small_body_that_decompresses_to_a_huge_one_is_cut_off() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let line = |text: String| format!("{:04x}{text}", text.len() + 4).into_bytes();
    // Requests that git itself would read to their end, however long.
    let prefix = line(format!("ref-prefix {}", "r".repeat(60_000)));
    let begin = [line("command=ls-refs\n".to_owned()), b"0001".to_vec()].concat();
    let name = "r".repeat(60_000);
    let command = line(format!("{} {} refs/heads/{name}\n", "0".repeat(40), "1".repeat(40)));
    for (service, kind, packed) in [
        ("git-upload-pack", FETCH, gzip(&begin, &prefix, 200 << 20)),
        ("git-receive-pack", PUSH, gzip(b"", &command, 200 << 20)),
    ] {
        assert!(packed.len() < 1 << 20);
        let path = format!("/git/{}/engine.git/{service}", world.ada.org);
        let request = || {
            let request = world.ada.request(Method::POST, &path).header("content-type", kind);
            request.header("git-protocol", "version=2").header("content-encoding", "gzip")
        };
        world.ada.send(request().body(packed)).await.expect(413);
        world.ada.send(request().body("not gzip")).await.expect(400);
    }
    assert!(processes_in(&world.bare(&made)).is_empty());
}

#[tokio::test]
async fn what_git_does_not_speak_is_refused_by_what_it_is() {
    let world = World::new().await;
    world.create("engine").await;
    let path = format!("/git/{}/engine.git/git-upload-pack", world.ada.org);
    let ask = async |headers: &[(&'static str, &str)], body: &'static str| {
        let mut request = world.ada.request(Method::POST, &path).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        world.ada.send(request).await
    };
    ask(&[("content-type", FETCH)], "this is no packet line").await.expect(400);
    ask(&[("content-type", "application/json")], "{}").await.expect(415);
    ask(&[("content-type", PUSH)], "0000").await.expect(415);
    ask(&[("content-type", FETCH), ("content-encoding", "br")], "0000").await.expect(415);
    ask(&[("content-type", FETCH)], "0000").await.expect(200);
    // Whatever is said of the protocol is read as one of three words or not at all.
    let odd = [("content-type", FETCH), ("git-protocol", "version=2;x=$(id)")];
    ask(&odd, "0000").await.expect(200);
    world.ada.get(&path).await.expect(405);
}

/// The head of a push, and a first piece of its body.
async fn begin_push(world: &World) -> TcpStream {
    let mut socket = TcpStream::connect(world.app.running.address).await.unwrap();
    let key = world.ada.key.as_ref().unwrap();
    let head = format!(
        "POST /git/{}/engine.git/git-receive-pack HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: {PUSH}\r\ntransfer-encoding: chunked\r\n\r\n",
        world.ada.org
    );
    let zero = "0".repeat(40);
    let command = format!("{zero} {} refs/heads/main\0report-status\n", "1".repeat(40));
    let body = format!("{:04x}{command}0000PACK", command.len() + 4);
    let chunk = format!("{:x}\r\n{body}\r\n", body.len());
    socket.write_all(format!("{head}{chunk}").as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_push_leaves_no_process_and_nothing_broken() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let bare = world.bare(&made);
    let socket = begin_push(&world).await;
    eventually(async || (!processes_in(&bare).is_empty()).then_some(())).await;
    drop(socket);
    eventually(async || processes_in(&bare).is_empty().then_some(())).await;
    eventually(async || {
        world.app.rows("SELECT 1 FROM repository_pushes").await.is_empty().then_some(())
    })
    .await;
    assert_eq!(git(&bare, &["for-each-ref"]).await.expect(), "");
    git(&bare, &["fsck", "--full"]).await.expect();
    world.work("first", &world.own("engine.git")).await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
}

#[tokio::test]
async fn a_push_under_way_ends_with_the_server() {
    let world = World::with(Setup::default().set("LOOM_SERVER_SHUTDOWN_GRACE_SECS", "1")).await;
    let made = world.create("engine").await;
    let bare = world.bare(&made);
    let _socket = begin_push(&world).await;
    eventually(async || (!processes_in(&bare).is_empty()).then_some(())).await;
    // The folder goes away with the server here.
    let World { app, .. } = world;
    app.stop().await;
    assert!(processes_in(&bare).is_empty());
}

#[tokio::test]
async fn a_push_that_stands_still_is_ended() {
    let world = World::with(Setup::default().set("LOOM_SERVER_SCM_IDLE_TIMEOUT_SECS", "1")).await;
    let made = world.create("engine").await;
    let mut socket = begin_push(&world).await;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("stood still"), "{answer}");
    assert!(processes_in(&world.bare(&made)).is_empty());
}

#[tokio::test]
async fn more_than_so_many_at_once_are_told_to_come_again() {
    let world = World::with(Setup::default().set("LOOM_SERVER_SCM_MAX_PROCESSES", "1")).await;
    let made = world.create("engine").await;
    let socket = begin_push(&world).await;
    eventually(async || (!processes_in(&world.bare(&made)).is_empty()).then_some(())).await;
    let refs = format!("/git/{}/engine.git/info/refs?service=git-upload-pack", world.ada.org);
    let refused = world.ada.get(&refs).await.expect(503);
    assert_eq!(refused.header("retry-after"), Some("10"));
    drop(socket);
    eventually(async || (world.ada.get(&refs).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_repository_without_its_directory_is_a_503_and_shows_in_health() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let component =
        async || world.app.anonymous().get("/health").await.json()["components"]["scm"].clone();
    let well = component().await;
    assert_eq!(well["status"], "healthy", "{well}");
    assert!(well["git_version"].as_str().unwrap().starts_with("2."), "{well}");
    let (bare, away) = (world.bare(&made), world.path("away"));
    std::fs::create_dir_all(&away).unwrap();
    std::fs::rename(&bare, away.join("x.git")).unwrap();
    world.git("", &["ls-remote", &world.own("engine.git")]).await.refused("503");
    let path = format!("/api/repos/{}", made["id"].as_str().unwrap());
    world.ada.post(&format!("{path}/maintenance"), &json!({})).await.expect(503);
    // Health is kept for a second.
    let ill =
        eventually(async || Some(component().await).filter(|c| c["status"] == "degraded")).await;
    assert_eq!(ill["missing_repositories"], 1, "{ill}");
    std::fs::rename(away.join("x.git"), &bare).unwrap();
    eventually(async || (component().await["status"] == "healthy").then_some(())).await;
    world.git("", &["ls-remote", &world.own("engine.git")]).await.expect();
}

#[tokio::test]
async fn health_turns_when_the_disk_cannot_be_written_to() {
    let world = World::new().await;
    let repos = world.app.data_dir().join("repos");
    let _ = std::fs::remove_dir_all(&repos);
    std::fs::write(&repos, b"not a directory").unwrap();
    let health = eventually(async || {
        let health = world.app.anonymous().get("/health").await.json();
        (health["components"]["scm"]["status"] == "unhealthy").then_some(health)
    })
    .await;
    // The rest of the server goes on.
    assert_eq!(health["status"], "degraded");
}

#[tokio::test]
async fn nobody_else_on_the_machine_reads_the_repositories() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    world.create("engine").await;
    let mode = std::fs::metadata(world.app.data_dir().join("repos")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
