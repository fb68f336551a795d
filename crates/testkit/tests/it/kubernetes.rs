//! The fake cluster, as the client that Loom has sees it.

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client, Config,
    api::{
        AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams,
        Preconditions,
    },
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, watcher},
};
use loom_testkit::{
    app::install_crypto,
    kubernetes::{FakeKubernetes, Fault, NAMESPACE, Step},
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn client(fake: &FakeKubernetes) -> Client {
    install_crypto();
    let kubeconfig = Kubeconfig::read_from(fake.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn pods(fake: &FakeKubernetes) -> Api<Pod> {
    Api::namespaced(client(fake).await, NAMESPACE)
}

fn pod(name: &str, image: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "weaver"}},
        "spec": {"containers": [{"name": "weaver", "image": image}]},
    }))
    .unwrap()
}

async fn made(fake: &FakeKubernetes, pods: &Api<Pod>, name: &str, image: &str) -> Pod {
    pods.create(&PostParams::default(), &pod(name, image)).await.unwrap();
    let found = fake.pod_when(name, |pod| pod["status"]["phase"] != "Pending").await;
    serde_json::from_value(found).unwrap()
}

#[tokio::test]
async fn a_watcher_sees_the_life_of_a_pod_over_cut_streams_and_forgotten_versions() {
    let fake = FakeKubernetes::start();
    let pods = pods(&fake).await;
    pods.create(&PostParams::default(), &pod("before", "fake/holds")).await.unwrap();
    let wanted = watcher::Config::default().labels("app=weaver").page_size(1);
    let mut events = watcher(pods.clone(), wanted).default_backoff().applied_objects().boxed();
    let mut next = async || {
        // A version that is forgotten is an error, after which it lists anew.
        let pod = loop {
            if let Ok(pod) = events.next().await.unwrap() {
                break pod;
            }
        };
        (pod.metadata.name.unwrap(), pod.status.unwrap().phase.unwrap())
    };
    assert_eq!(next().await, ("before".to_owned(), "Pending".to_owned()));
    fake.end_watches();
    fake.go_on("before");
    let mut phase = String::new();
    while phase != "Running" {
        (_, phase) = next().await;
    }
    fake.compact();
    fake.end_watches();
    fake.exit("before", 3);
    while phase != "Failed" {
        (_, phase) = next().await;
    }
    let status = fake.pod("before").unwrap()["status"]["containerStatuses"][0]["state"].clone();
    assert_eq!(status["terminated"]["exitCode"], 3);
}

#[tokio::test]
async fn a_name_makes_one_pod_and_a_deletion_of_another_uid_is_refused() {
    let fake = FakeKubernetes::start();
    let pods = pods(&fake).await;
    let first = made(&fake, &pods, "one", "fake/runs").await;
    let again = pods.create(&PostParams::default(), &pod("one", "fake/runs")).await.unwrap_err();
    assert!(matches!(again, kube::Error::Api(status) if status.code == 409));
    let other = Preconditions { uid: Some("other".to_owned()), ..Preconditions::default() };
    let other = DeleteParams { preconditions: Some(other), ..DeleteParams::default() };
    assert!(pods.delete("one", &other).await.is_err());
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "one",
        "uid": first.metadata.uid.unwrap()});
    let secrets: Api<Secret> = Api::namespaced(client(&fake).await, NAMESPACE);
    let secret = json!({"metadata": {"name": "of-one", "ownerReferences": [owner]},
        "stringData": {"token": "x"}});
    let secret: Secret = serde_json::from_value(secret).unwrap();
    let secret = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(secret.data.unwrap()["token"].0, b"x");
    let labels = json!({"metadata": {"labels": {"more": "yes"}}});
    pods.patch("one", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    assert_eq!(pods.list(&ListParams::default().labels("more=yes")).await.unwrap().items.len(), 1);
    pods.delete("one", &DeleteParams::default()).await.unwrap();
    loom_testkit::eventually(async || fake.objects("secrets").is_empty().then_some(())).await;
    assert!(fake.pods().is_empty());
}

#[tokio::test]
async fn logs_are_followed_and_begin_at_the_second_that_was_asked_for() {
    let fake = FakeKubernetes::start();
    let pods = pods(&fake).await;
    made(&fake, &pods, "one", "fake/runs").await;
    let at = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    fake.say_at("one", at("2027-01-01T00:00:00.1Z"), "old");
    fake.say_at("one", at("2027-01-01T00:00:01.1Z"), "first");
    // A whole second: the client rounds others, up too.
    let since_time = Some("2027-01-01T00:00:01Z".parse().unwrap());
    let wanted = LogParams { follow: true, timestamps: true, since_time, ..LogParams::default() };
    let mut lines = pods.log_stream("one", &wanted).await.unwrap().lines();
    assert_eq!(lines.try_next().await.unwrap().unwrap(), "2027-01-01T00:00:01.100000000Z first");
    fake.say_at("one", at("2027-01-01T00:00:02Z"), "second");
    assert!(lines.try_next().await.unwrap().unwrap().ends_with(" second"));
    fake.exit("one", 0);
    assert_eq!(lines.try_next().await.unwrap(), None);
    fake.rotate("one");
    assert_eq!(pods.logs("one", &LogParams::default()).await.unwrap(), "");
}

#[tokio::test]
async fn commands_and_terminals_run_over_both_protocols() {
    for only_v4 in [false, true] {
        let fake = FakeKubernetes::start();
        let pods = pods(&fake).await;
        made(&fake, &pods, "one", "fake/runs").await;
        if only_v4 {
            fake.only_v4();
        }
        let wanted = AttachParams::default();
        let mut run = pods.exec("one", ["exit", "7"], &wanted).await.unwrap();
        let status = run.take_status().unwrap().await.unwrap();
        assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("7"));

        let mut run = pods.exec("one", ["cat"], &wanted.stdin(true)).await.unwrap();
        let mut stdin = run.stdin().unwrap();
        let mut stdout = run.stdout().unwrap();
        stdin.write_all(b"over").await.unwrap();
        let mut bytes = [0; 4];
        stdout.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"over");
        let status = run.take_status().unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
        // The old protocol cannot close one direction: how it ended is not heard.
        assert_eq!(status.await.is_some(), !only_v4);

        let terminal = AttachParams::interactive_tty();
        let mut run = pods.attach("one", &terminal).await.unwrap();
        run.stdin().unwrap().write_all(b"exit 4\n").await.unwrap();
        let status = run.take_status().unwrap().await.unwrap();
        assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("4"));
        fake.pod_in("one", "Failed").await;
    }
}

#[tokio::test]
async fn what_goes_wrong_is_by_script() {
    let fake = FakeKubernetes::start();
    let pods = pods(&fake).await;
    fake.fault(Fault::quota().times(1));
    let refused = pods.create(&PostParams::default(), &pod("one", "fake/runs")).await.unwrap_err();
    assert!(
        matches!(refused, kube::Error::Api(status) if status.message.contains("exceeded quota"))
    );
    fake.deny("create", "pods");
    assert!(pods.create(&PostParams::default(), &pod("one", "fake/runs")).await.is_err());
    fake.allow("create", "pods");
    fake.fault(Fault::lose("create", "pods").times(1));
    assert!(pods.create(&PostParams::default(), &pod("one", "fake/runs")).await.is_err());
    fake.pod_in("one", "Running").await;
    fake.happens("one", Step::Oom);
    let pod = fake.pod_in("one", "Failed").await;
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["reason"], "OOMKilled");
    fake.gone().await;
    assert!(pods.list(&ListParams::default()).await.is_err());
    fake.back();
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 1);
}
