//! Clone, fetch and push.

use loom_core::principal::{OrgRole, Scope};
use serde_json::json;

use crate::harness::{World, noise};

#[tokio::test]
async fn what_is_pushed_to_an_empty_repository_is_cloned_back() {
    let world = World::new().await;
    let repository = world.create("engine").await;
    let url = world.own("engine.git");
    world.work("first", &url).await;
    let head = world.git("first", &["rev-parse", "HEAD"]).await.expect();
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    world.git("", &["clone", "-q", &url, "second"]).await.expect();
    assert_eq!(world.git("second", &["rev-parse", "HEAD"]).await.expect(), head);
    assert_eq!(std::fs::read(world.path("second/a.txt")).unwrap(), b"one");

    let id = repository["id"].as_str().unwrap();
    let now = world.ada.get(&format!("/api/repos/{id}")).await.expect(200).json();
    assert!(now["pushed_at"].is_string(), "{now}");
    assert!(now["size_bytes"].as_i64().unwrap() > 100, "{now}");
    assert_eq!(repository["pushed_at"], json!(null));
}

#[tokio::test]
async fn fifty_megabytes_go_up_and_come_back_whole() {
    let world = World::new().await;
    let repository = world.create("large").await;
    let url = world.own("large.git");
    world.work("first", &url).await;
    for part in 0..5 {
        let file = format!("{part}.bin");
        std::fs::write(world.path("first").join(file), noise(10 << 20, part + 1)).unwrap();
    }
    let head = world.commit("first", "b.txt", b"two").await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    world.git("", &["clone", "-q", &url, "second"]).await.expect();
    assert_eq!(world.git("second", &["rev-parse", "HEAD"]).await.expect(), head);
    for part in 0..5 {
        let file = std::fs::read(world.path(&format!("second/{part}.bin"))).unwrap();
        assert!(file == noise(10 << 20, part + 1), "{part}");
    }
    let bare = world.bare(&repository);
    crate::harness::git(&bare, &["fsck", "--full", "--strict"]).await.expect();
}

#[tokio::test]
async fn a_clone_may_be_shallow_or_partial_and_of_either_protocol() {
    let world = World::new().await;
    world.create("engine").await;
    let url = world.own("engine.git");
    world.work("first", &url).await;
    for round in 0..5 {
        world.commit("first", "big.bin", &noise(100_000, round)).await;
    }
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    for (dir, protocol) in [("zero", "protocol.version=0"), ("two", "protocol.version=2")] {
        let clone = ["-c", protocol, "clone", "-q", "--no-local"];
        world.git("", &[&clone[..], &[url.as_str(), dir]].concat()).await.expect();
        assert_eq!(world.git(dir, &["rev-list", "--count", "HEAD"]).await.expect(), "6");
        let shallow = format!("{dir}-shallow");
        world.git("", &[&clone[..], &["--depth", "1", &url, &shallow]].concat()).await.expect();
        assert_eq!(world.git(&shallow, &["rev-list", "--count", "HEAD"]).await.expect(), "1");
        world.git(&shallow, &["-c", protocol, "fetch", "-q", "--deepen=2"]).await.expect();
        assert_eq!(world.git(&shallow, &["rev-list", "--count", "HEAD"]).await.expect(), "3");
        let pushed = world.commit(dir, "c.txt", dir.as_bytes()).await;
        let branch = format!("HEAD:refs/heads/{dir}");
        world.git(dir, &["-c", protocol, "push", "-q", "origin", &branch]).await.expect();
        let there = world.git(dir, &["ls-remote", "origin", dir]).await.expect();
        assert!(there.starts_with(&pushed), "{there}");
    }
    let partial = ["clone", "-q", "--filter=blob:none", "--no-checkout", &url, "partial"];
    world.git("", &partial).await.expect();
    let missing = ["rev-list", "--objects", "--missing=print", "--all"];
    let listed = world.git("partial", &missing).await.expect();
    assert!(listed.lines().filter(|line| line.starts_with('?')).count() >= 6, "{listed}");
    // What is wanted after all is fetched then.
    world.git("partial", &["checkout", "-q", "main"]).await.expect();
    assert_eq!(std::fs::read(world.path("partial/big.bin")).unwrap(), noise(100_000, 4));
}

#[tokio::test]
async fn a_request_of_many_haves_which_git_compresses_is_understood() {
    let world = World::new().await;
    world.create("engine").await;
    let url = world.own("engine.git");
    world.work("first", &url).await;
    world.work("second", &url).await;
    for round in 0..60 {
        world
            .git("first", &["commit", "-q", "--allow-empty", "-m", &round.to_string()])
            .await
            .expect();
        world.git("first", &["branch", &format!("b{round}")]).await.expect();
    }
    world.git("first", &["push", "-q", "--all", "origin"]).await.expect();
    // With a history of its own it has much to say before both know what they share.
    for round in 0..60 {
        world
            .git("second", &["commit", "-q", "--allow-empty", "-m", &format!("x{round}")])
            .await
            .expect();
    }
    let mut traced = crate::harness::command(&world.path("second"));
    traced.env("GIT_CURL_VERBOSE", "1").args(["-c", "protocol.version=0", "fetch", "origin"]);
    let said = traced.output().await.unwrap();
    assert!(said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).to_lowercase();
    assert!(said.contains("content-encoding: gzip"), "{said}");
}

#[tokio::test]
async fn only_a_good_token_with_the_scope_gets_in() {
    let world = World::new().await;
    let repository = world.create("engine").await;
    let own = world.own("engine.git");
    world.work("first", &own).await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    let path = format!("{}/engine.git", world.ada.org);
    let clone = async |url: &str| world.git("", &["clone", "-q", url, "x"]).await;

    clone(&world.url(&world.app.anonymous(), &path)).await.refused("could not read Username");
    let good = world.ada.key.clone().unwrap();
    let wrong = world.app.anonymous().with_key(&good.replace(&good[12..13], "~"));
    clone(&world.url(&wrong, &path)).await.refused("Authentication failed");
    let refused = world
        .app
        .anonymous()
        .get(&format!("/git/{path}/info/refs?service=git-upload-pack"))
        .await
        .expect(401);
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"Loom\""));
    assert!(refused.header("content-type").unwrap().starts_with("text/plain"));

    // A stranger is not told that it is there; the same with the id.
    let bob = world.app.user("bob@example.com").await;
    for path in [path.clone(), format!("{}/{}", world.ada.org, repository["id"].as_str().unwrap())]
    {
        clone(&world.url(&bob, &path)).await.refused("not found");
    }

    let reader = world.app.with_scopes(&world.ada, &[Scope::ReposRead]).await;
    world.git("", &["clone", "-q", &world.url(&reader, &path), "reader"]).await.expect();
    world.commit("reader", "r.txt", b"r").await;
    world.git("reader", &["push", "origin", "HEAD:main"]).await.refused("403");
    let none = world.app.with_scopes(&world.ada, &[Scope::ThreadsRead]).await;
    let refused = clone(&world.url(&none, &path)).await;
    assert!(refused.err.contains("repos:read"), "git shows what is missing: {refused:?}");

    // By the ways other clients send a token, too.
    let refs = format!("/git/{path}/info/refs?service=git-upload-pack");
    world.ada.get(&refs).await.expect(200);
    world.app.anonymous().with("x-api-key", &good).get(&refs).await.expect(200);
}

#[tokio::test]
async fn who_may_see_a_repository_clones_it_and_members_of_its_organisation_push() {
    let world = World::new().await;
    let team = world.ada.post("/api/orgs", &json!({"slug": "engines", "name": "Engines"})).await;
    let team = team.expect(201).json()["id"].as_str().unwrap().parse().unwrap();
    let (bob, eve) =
        (world.app.user("bob@example.com").await, world.app.user("eve@example.com").await);
    world.app.join(bob.id, team, OrgRole::Member).await;
    let of_team = world.ada.with("x-loom-org", "engines");
    let new = json!({"name": "engine"});
    let made = of_team.post("/api/repos", &new).await.expect(201).json();
    assert!(made["clone_url"].as_str().unwrap().ends_with("/git/engines/engine.git"), "{made}");
    let path = format!("/api/repos/{}", made["id"].as_str().unwrap());
    let url = |caller| world.url(caller, "engines/engine.git");
    world.work("ada", &url(&world.ada)).await;
    world.git("ada", &["push", "-q", "origin", "main"]).await.expect();

    // Private: hers alone.
    for stranger in [&bob, &eve] {
        world.git("", &["ls-remote", &url(stranger)]).await.refused("not found");
    }
    of_team.patch(&path, &json!({"visibility": "organization"})).await.expect(200);
    world.git("", &["clone", "-q", &url(&bob), "bob"]).await.expect();
    let head = world.commit("bob", "b.txt", b"b").await;
    world.git("bob", &["push", "-q", "origin", "HEAD:main"]).await.expect();
    world.git("", &["ls-remote", &url(&eve)]).await.refused("not found");

    // Public: all who are signed in read; strangers see that they may not push.
    of_team.patch(&path, &json!({"visibility": "public"})).await.expect(200);
    world.git("", &["clone", "-q", &url(&eve), "eve"]).await.expect();
    assert_eq!(world.git("eve", &["rev-parse", "HEAD"]).await.expect(), head);
    world.commit("eve", "e.txt", b"e").await;
    world.git("eve", &["push", "origin", "HEAD:main"]).await.refused("403");
    world.git("", &["ls-remote", &url(&world.app.anonymous())]).await.refused("could not read");
}

#[tokio::test]
async fn a_renamed_repository_is_found_by_its_new_name_and_always_by_its_id() {
    let world = World::new().await;
    let made = world.create("engine").await;
    let id = made["id"].as_str().unwrap();
    world.work("first", &world.own("engine.git")).await;
    world.git("first", &["push", "-q", "origin", "main"]).await.expect();
    let path = format!("/api/repos/{id}");
    world.ada.patch(&path, &json!({"name": "Motor", "default_branch": "next"})).await.expect(200);
    world.git("", &["ls-remote", &world.own("engine.git")]).await.refused("not found");
    for name in ["motor.git", "Motor", id, &format!("{id}.git")] {
        let listed = world.git("", &["ls-remote", &world.own(name)]).await.expect();
        assert!(listed.contains("refs/heads/main"), "{name}: {listed}");
    }
    // A clone checks out the new default branch.
    world.git("first", &["push", "-q", &world.own(id), "main:next"]).await.expect();
    world.git("", &["clone", "-q", &world.own(id), "second"]).await.expect();
    assert_eq!(world.git("second", &["branch", "--show-current"]).await.expect(), "next");

    world.ada.delete(&path).await.expect(204);
    for name in ["motor.git", id] {
        world.git("", &["ls-remote", &world.own(name)]).await.refused("not found");
    }
    world.ada.get(&path).await.expect(404);
    // Its name is free.
    world.create("motor").await;
}
