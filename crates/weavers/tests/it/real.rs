//! Against a real cluster, named by `LOOM_TEST_KUBECONFIG` (an admin's, of a cluster for tests: `make
//! test-kubernetes`). The server works there by the account that `deploy/kubernetes/weavers` makes, with what that may.
//! Where no node is ready, the test plays the kubelet.

use std::{path::PathBuf, process::Stdio, time::Duration};

use loom_testkit::{Setup, TestApp, User, eventually};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{enter::Terminal, restricted::breaches, support::pod};

const NAMESPACE: &str = "loom-weavers";
const IMAGE: &str = "localhost/weaver:test";

struct Real {
    admin: PathBuf,
    app: TestApp,
    user: User,
    /// Pods really run.
    runs: bool,
    /// A scheduler is there too, and somebody who counts quotas.
    has_controllers: bool,
    _directory: tempfile::TempDir,
}

async fn kubectl(admin: &PathBuf, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new("kubectl");
    command.env("KUBECONFIG", admin).args(args).stdin(Stdio::null());
    let output = command.output().await.expect("kubectl is there");
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

impl Real {
    /// None where no cluster is named.
    async fn start(vars: &[(&str, &str)]) -> Option<Self> {
        let Some(admin) = std::env::var_os("LOOM_TEST_KUBECONFIG").map(PathBuf::from) else {
            eprintln!("LOOM_TEST_KUBECONFIG names no cluster: nothing was tested");
            return None;
        };
        let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/weavers");
        kubectl(&admin, &["apply", "-k", deploy]).await.unwrap();
        let nodes = kubectl(&admin, &["get", "nodes", "-o", "json"]).await.unwrap();
        let nodes: Value = serde_json::from_str(&nodes).unwrap();
        let is_ready = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
        };
        let runs = nodes["items"].as_array().unwrap().iter().any(is_ready);
        let has_controllers = has_controllers(&admin).await;
        allow_pods(&admin, 80, has_controllers).await;
        let token = eventually(async || {
            kubectl(&admin, &["-n", NAMESPACE, "create", "token", "loom-server"]).await.ok()
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let account = directory.path().join("kubeconfig");
        let own =
            kubectl(&admin, &["config", "view", "--raw", "--minify", "--flatten", "-o", "json"])
                .await
                .unwrap();
        let mut own: Value = serde_json::from_str(&own).unwrap();
        own["users"][0]["user"] = json!({"token": token.trim()});
        std::fs::write(&account, own.to_string()).unwrap();
        let mut setup = Setup::default()
            .set("LOOM_SERVER_WEAVER_ENABLED", "true")
            .set("LOOM_SERVER_WEAVER_KUBECONFIG", account.display().to_string());
        for (name, value) in vars {
            setup = setup.set(name, *value);
        }
        let app = setup.start().await;
        let user = app.user("mara@example.com").await;
        Some(Self { admin, app, user, runs, has_controllers, _directory: directory })
    }

    async fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        kubectl(&self.admin, &[&["-n", NAMESPACE], args].concat()).await
    }

    async fn create(&self, mut body: Value) -> String {
        body["wait"] = json!(false);
        if body["image"].is_null() {
            body["image"] = json!(IMAGE);
        }
        if body["resources"].is_null() {
            body["resources"] =
                json!({"cpu": "500m", "memory": "128Mi", "ephemeral_storage": "256Mi"});
        }
        let weaver = self.user.post("/api/weaver", &body).await.expect(202).json();
        weaver["id"].as_str().unwrap().to_owned()
    }

    async fn when(&self, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..2400 {
            last = self.user.get(&format!("/api/weaver/{id}")).await.expect(200).json();
            if is_so(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not in time: {last}");
    }

    /// Where nothing runs pods, they run because we say so.
    async fn running(&self, id: &str) -> Value {
        if !self.runs {
            let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            let ready =
                |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
            let status = json!({"status": {"phase": "Running", "conditions": [ready("PodScheduled"), ready("Ready")],
                "containerStatuses": [{"name": "weaver", "image": IMAGE, "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {"startedAt": now}}}]}});
            self.play(id, &status).await;
        }
        self.when(id, |weaver| weaver["status"] == "running").await
    }

    async fn pod(&self, id: &str) -> Value {
        let pod = self.kubectl(&["get", "pod", &pod(id), "-o", "json"]).await.unwrap();
        serde_json::from_str(&pod).unwrap()
    }

    async fn play(&self, id: &str, status: &Value) {
        let (name, patch) = (pod(id), status.to_string());
        let args = ["patch", "pod", &name, "--subresource=status", "--type=merge", "-p", &patch];
        let mut last = String::new();
        for _ in 0..100 {
            match self.kubectl(&args).await {
                Ok(_) => return,
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let weaver = self.user.get(&format!("/api/weaver/{id}")).await.text;
        panic!("{last}: {weaver}");
    }

    async fn is_gone(&self, id: &str) {
        let name = pod(id);
        for _ in 0..300 {
            let rest = self.kubectl(&["get", "pod,secret", "-o", "name"]).await.unwrap();
            if !rest.contains(&name) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{name} is still there");
    }

    async fn end(self, ids: &[&str]) {
        for id in ids {
            self.user.delete(&format!("/api/weaver/{id}")).await.expect(204);
        }
        for id in ids {
            self.is_gone(id).await;
        }
        self.app.stop().await;
    }
}

async fn has_controllers(admin: &PathBuf) -> bool {
    // Its work: an account in each namespace.
    eventually(async || {
        let found = kubectl(admin, &["-n", "kube-system", "get", "serviceaccounts", "-o", "name"])
            .await
            .ok()?;
        Some(found.contains("serviceaccount/default"))
    })
    .await
}

/// The quota of the namespace lets in so many pods.
async fn allow_pods(admin: &PathBuf, pods: u32, has_controllers: bool) {
    let patch = async |args: &[&str], patch: Value| {
        let patch = patch.to_string();
        let own =
            ["-n", NAMESPACE, "patch", "resourcequota", "weavers", "--type=merge", "-p", &patch];
        kubectl(admin, &[&own, args].concat()).await.unwrap();
    };
    let hard = json!({"pods": pods.to_string()});
    patch(&[], json!({"spec": {"hard": hard}})).await;
    if has_controllers {
        return;
    }
    // Without its controller a quota knows nothing, and lets nothing in.
    let quota =
        kubectl(admin, &["-n", NAMESPACE, "get", "resourcequota", "weavers", "-o", "json"]).await;
    let quota: Value = serde_json::from_str(&quota.unwrap()).unwrap();
    let hard = quota["spec"]["hard"].as_object().unwrap();
    let used: serde_json::Map<String, Value> =
        hard.keys().map(|key| (key.clone(), json!("0"))).collect();
    patch(&["--subresource=status"], json!({"status": {"hard": hard, "used": used}})).await;
}

#[tokio::test]
async fn real_a_weaver_lives_with_the_permissions_that_are_shipped() {
    let Some(real) = Real::start(&[]).await else { return };
    let id = real
        .create(json!({"command": ["sleep", "600"], "env": {"API_KEY": "secret-value-1234567890"}}))
        .await;
    real.running(&id).await;
    let pod = real.kubectl(&["get", "pod", &pod(&id), "-o", "json"]).await.unwrap();
    assert!(!pod.contains("secret-value"), "{pod}");
    let pod: Value = serde_json::from_str(&pod).unwrap();
    let spec = &pod["spec"];
    // As the cluster has it, with its own defaults in it.
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    let container = &spec["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    let owner = eventually(async || {
        let secret = real
            .kubectl(&["get", "secret", &crate::support::pod(&id), "-o", "json"])
            .await
            .unwrap();
        let secret: Value = serde_json::from_str(&secret).unwrap();
        let owner = secret["metadata"]["ownerReferences"][0]["uid"].clone();
        owner.is_string().then_some(owner)
    })
    .await;
    assert_eq!(owner, pod["metadata"]["uid"]);
    assert_eq!(breaches(&pod), Vec::<String>::new());
    // Its class of the network changes while it runs, and there is a policy for it.
    let path = format!("/api/weaver/{id}");
    real.user.patch(&path, &json!({"network": "off"})).await.expect(200);
    let now = real.pod(&id).await;
    let class = now["metadata"]["labels"]["loom.dev/network"].as_str().unwrap().to_owned();
    assert!(class.starts_with("off."), "{class}");
    let policies = real.kubectl(&["get", "networkpolicies", "-o", "json"]).await.unwrap();
    let policies: Value = serde_json::from_str(&policies).unwrap();
    let denies = |policy: &Value| {
        let values = policy["spec"]["podSelector"]["matchExpressions"][0]["values"].as_array();
        values.is_some_and(|values| values.contains(&json!(class)))
            && policy["spec"]["egress"].is_null()
            && policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"])
    };
    assert_eq!(policies["items"].as_array().unwrap().iter().filter(|it| denies(it)).count(), 1);
    real.user.delete(&path).await.expect(204);
    let weaver = real.when(&id, |weaver| weaver["ended_at"].is_string()).await;
    assert_eq!((&weaver["status"], &weaver["reason_code"]), (&json!("deleted"), &json!("deleted")));
    real.end(&[&id]).await;
}

#[tokio::test]
async fn real_what_the_cluster_has_no_room_for_waits_and_says_why() {
    let Some(real) = Real::start(&[]).await else { return };
    allow_pods(&real.admin, 0, real.has_controllers).await;
    if real.has_controllers {
        let args = ["get", "resourcequota", "weavers", "-o", "jsonpath={.status.hard.pods}"];
        eventually(async || (real.kubectl(&args).await.ok()? == "0").then_some(())).await;
    }
    let id = real.create(json!({"command": ["sleep", "600"]})).await;
    let weaver = real.when(&id, |weaver| !weaver["reason_code"].is_null()).await;
    assert_eq!((&weaver["status"], &weaver["reason_code"]), (&json!("pending"), &json!("quota")));
    assert!(weaver["reason"].as_str().unwrap().contains("exceeded quota"), "{weaver}");
    allow_pods(&real.admin, 80, real.has_controllers).await;
    real.running(&id).await;
    let mut all = vec![id];
    if real.has_controllers {
        let much = json!({"cpu": "128", "memory": "128Mi", "ephemeral_storage": "256Mi"});
        let big = real.create(json!({"command": ["sleep", "600"], "resources": much})).await;
        let weaver = real.when(&big, |weaver| !weaver["reason_code"].is_null()).await;
        assert_eq!(weaver["reason_code"], "unschedulable", "{weaver}");
        let short = if real.runs { "not enough cpu" } else { "no node" };
        assert!(weaver["reason"].as_str().unwrap().contains(short), "{weaver}");
        all.push(big);
    }
    real.end(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn real_a_server_without_a_binding_of_its_role_does_not_start() {
    use futures::FutureExt as _;
    let Some(real) = Real::start(&[]).await else { return };
    real.kubectl(&["delete", "rolebinding", "loom-server"]).await.unwrap();
    let started = std::panic::AssertUnwindSafe(real.app.replica()).catch_unwind().await;
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/weavers");
    kubectl(&real.admin, &["apply", "-k", deploy]).await.unwrap();
    let panic = started.err().expect("it does not start");
    let why = panic.downcast_ref::<String>().unwrap();
    assert!(why.contains("deploy/kubernetes"), "{why}");
    real.end(&[]).await;
}

#[tokio::test]
async fn real_a_second_server_takes_over_and_deletion_by_hand_is_told() {
    let Some(real) = Real::start(&[]).await else { return };
    let id = real.create(json!({"command": ["sleep", "600"]})).await;
    real.running(&id).await;
    let second = real.app.replica().await;
    real.app.running.features.weavers.close().await;
    real.kubectl(&["delete", "pod", &pod(&id), "--grace-period=1", "--wait=false"]).await.unwrap();
    let weaver = real.when(&id, |weaver| weaver["status"] == "lost").await;
    assert!(weaver["reason"].as_str().unwrap().contains("not by this server"), "{weaver}");
    real.is_gone(&id).await;
    second.shut_down().await;
    real.app.stop().await;
}

/// The API server stops and starts again: `LOOM_TEST_KUBERNETES_RESTART` is the command that does it.
#[tokio::test]
async fn real_a_restart_of_the_api_server_loses_nothing() {
    let Some(real) = Real::start(&[]).await else { return };
    let Ok(restart) = std::env::var("LOOM_TEST_KUBERNETES_RESTART") else {
        eprintln!("LOOM_TEST_KUBERNETES_RESTART names no command: nothing was restarted");
        return;
    };
    let before = real.create(json!({"command": ["sleep", "600"]})).await;
    real.running(&before).await;
    let mut shell = Command::new("sh");
    shell.args(["-c", &restart]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut restarted = shell.spawn().unwrap();
    let during = real.create(json!({"command": ["sleep", "600"]})).await;
    assert!(restarted.wait().await.unwrap().success());
    real.running(&during).await;
    assert_eq!(real.when(&before, |_| true).await["status"], "running");
    real.end(&[&before, &during]).await;
}

#[tokio::test]
async fn real_pods_really_run_and_each_end_is_told() {
    let Some(real) = Real::start(&[]).await else { return };
    if !real.runs {
        eprintln!("no node is ready: nothing was run");
        return;
    }
    let sh = |script: &str| json!({"command": ["sh", "-c", script]});
    let writes = "touch /workspace/a /tmp/b $HOME/c && test -r $LOOM_TOKEN_FILE && ! touch /x && test $(id -u) = 1000";
    let cases = [
        (sh(writes), "succeeded", "exited"),
        (sh("exit 3"), "failed", "crashed"),
        (json!({"command": ["/no/such/command"]}), "failed", "start"),
        (sh("x=a; while :; do x=$x$x; done"), "failed", "out_of_memory"),
        (json!({"command": ["sleep", "600"], "lifetime_hours": 0.01}), "expired", "expired"),
        // More than a quarter of its room on the disk.
        (sh("head -c 80000000 /dev/zero >/tmp/much; sleep 600"), "lost", "evicted"),
        (json!({"repo": "https://git.invalid/a/b"}), "failed", "clone_failed"),
        // Nobody listens there: its grace is that of a registry which cannot be reached just now.
        (json!({"image": "127.0.0.1:1/no/such:1"}), "failed", "image_pull"),
    ];
    let mut ids = Vec::new();
    for (body, ..) in &cases {
        ids.push(real.create(body.clone()).await);
    }
    for ((body, status, code), id) in cases.iter().zip(&ids) {
        let weaver = real.when(id, |weaver| weaver["ended_at"].is_string()).await;
        assert_eq!(weaver["status"], *status, "{body}: {weaver}");
        assert_eq!(weaver["reason_code"], *code, "{body}: {weaver}");
        real.is_gone(id).await;
    }
    let timeline =
        real.user.get(&format!("/api/weaver/{}/timeline", ids[1])).await.expect(200).text;
    for phase in ["queued", "scheduled", "started", "exit", "ended"] {
        assert!(timeline.contains(phase), "{timeline}");
    }
    real.app.stop().await;
}

#[tokio::test]
async fn real_what_it_says_is_kept_and_commands_and_terminals_run_in_it() {
    let Some(real) = Real::start(&[]).await else { return };
    if !real.runs {
        eprintln!("no node is ready: nothing was run");
        return;
    }
    let script = "for i in $(seq 1 200); do echo line $i; done; echo last >&2; read -r word; echo got $word; exit 4";
    let id = real.create(json!({"command": ["sh", "-c", script]})).await;
    real.running(&id).await;
    let exec = async |body: Value| {
        real.user.post(&format!("/api/weaver/{id}/exec"), &body).await.expect(200).json()
    };
    let seven = exec(json!({"command": ["sh", "-c", "echo out; echo err >&2; exit 7"]})).await;
    assert_eq!(
        (&seven["exit_code"], &seven["stdout"], &seven["stderr"]),
        (&json!(7), &json!("out\n"), &json!("err\n"))
    );
    let flood =
        exec(json!({"command": ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"]})).await;
    assert_eq!((&flood["exit_code"], &flood["truncated"]), (&json!(0), &json!(true)));
    let slow = exec(json!({"command": ["sleep", "100"], "timeout_secs": 1})).await;
    assert_eq!((&slow["exit_code"], &slow["outcome"]), (&Value::Null, &json!("timed_out")));

    // A cluster that cannot end the input without the connection knows no end: null, and no success.
    let fed = exec(json!({"command": ["cat"], "stdin": "fed"})).await;
    let is_known = fed["outcome"] == "exited" && fed["exit_code"] == 0 && fed["stdout"] == "fed";
    let is_unknown = fed["outcome"] == "unknown" && fed["exit_code"].is_null();
    assert!(is_known || is_unknown, "{fed}");

    let path = format!("/api/weaver/{id}/attach");
    let key = real.user.key.as_deref();
    let mut shell = Terminal::open(&real.app, key, &format!("{path}?command=sh")).await.unwrap();
    assert_eq!(shell.control().await["tty"], true);
    shell.text(&json!({"type": "resize", "cols": 123, "rows": 45})).await;
    // The size is set beside what is typed.
    shell.bytes("until stty size | grep -q 123; do sleep 0.1; done; stty size; exit 9\n").await;
    shell.output_with("45 123\r\n").await;
    assert_eq!(shell.exit().await, json!(9));

    let mut own = Terminal::open(&real.app, key, &path).await.unwrap();
    assert_eq!(own.control().await["status"], "attached");
    own.bytes("hello\n").await;
    own.output_with("got hello\n").await;
    let weaver = real.when(&id, |weaver| weaver["ended_at"].is_string()).await;
    assert_eq!((&weaver["status"], &weaver["exit_code"]), (&json!("failed"), &json!(4)));
    real.is_gone(&id).await;
    let log = real.user.get(&format!("/api/weaver/{id}/logs?tail=1000")).await.expect(200).text;
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("id: ")).collect();
    assert_eq!(lines.len(), 202, "{log}");
    assert!(log.contains("line 1\"") && log.contains("got hello"), "{log}");
    real.app.stop().await;
}
