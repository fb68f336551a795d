//! The pod as it is made: word by word, and by the rules of Pod Security.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, Pod, Secret};
use loom_core::config::Env;
use serde_json::{Value, json};

use super::{restricted::breaches, spec};
use crate::{Config, identity::Identity, model::Row, reconcile::decide::tests::row as tests_row};

fn config(vars: &[(&str, &str)]) -> Config {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut env = Env::new(vars);
    let config = Config::load(&mut env, "https://loom.example");
    assert!(env.problems().is_empty(), "{:?}", env.problems());
    config
}

fn identity(env: &[(&str, &str)]) -> Identity {
    let var = |(name, value): &(&str, &str)| EnvVar {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
        ..EnvVar::default()
    };
    Identity { env: env.iter().map(var).collect(), secret: Secret::default() }
}

fn row(change: impl FnOnce(&mut Row)) -> Row {
    let mut row = tests_row();
    change(&mut row);
    row
}

fn built(row: &Row, config: &Config) -> Value {
    serde_json::to_value(spec::pod(row, &identity(&[("GREETING", "a $(HOME) and $5")]), config))
        .unwrap()
}

/// What we ask of ourselves beyond.
fn beyond(pod: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    let spec = &pod["spec"];
    for (key, value) in [
        ("automountServiceAccountToken", json!(false)),
        ("enableServiceLinks", json!(false)),
        ("restartPolicy", json!("Never")),
    ] {
        if spec[key] != value {
            missing.push(key.to_owned());
        }
    }
    for container in ["initContainers", "containers"]
        .iter()
        .flat_map(|key| spec[*key].as_array().into_iter().flatten())
    {
        if container["securityContext"]["readOnlyRootFilesystem"] != true {
            missing.push(format!("{} root", container["name"]));
        }
        for kind in ["requests", "limits"] {
            for what in ["cpu", "memory", "ephemeral-storage"] {
                if container["resources"][kind][what].is_null() {
                    missing.push(format!("{} {kind} {what}", container["name"]));
                }
            }
        }
    }
    for volume in spec["volumes"].as_array().unwrap() {
        if volume.get("emptyDir").is_some_and(|dir| dir["sizeLimit"].is_null()) {
            missing.push(format!("size of {}", volume["name"]));
        }
    }
    missing
}

#[test]
fn every_pod_keeps_the_rules_whatever_is_asked_for() {
    let plain = config(&[]);
    let full = config(&[
        ("LOOM_SERVER_WEAVER_GIT_IMAGE", "fake/git"),
        ("LOOM_SERVER_WEAVER_RUNTIME_CLASS", "gvisor"),
        ("LOOM_SERVER_WEAVER_NODE_SELECTOR", "pool=weavers"),
        ("LOOM_SERVER_WEAVER_TOLERATIONS", "dedicated=weavers:NoSchedule"),
        ("LOOM_SERVER_WEAVER_IMAGE_PULL_SECRETS", "registry"),
    ]);
    let cloned = row(|row| row.spec.repo = Some("https://git.example/a/b.git".to_owned()));
    let commanded =
        row(|row| row.spec.command = vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()]);
    for row in [row(|_| {}), cloned, commanded] {
        for config in [&plain, &full] {
            let pod = built(&row, config);
            assert_eq!(breaches(&pod), Vec::<String>::new());
            assert_eq!(beyond(&pod), Vec::<String>::new());
        }
    }
}

#[test]
fn the_rules_find_what_breaks_them() {
    let good =
        built(&row(|row| row.spec.repo = Some("https://x.example/y".to_owned())), &config(&[]));
    let breaks: [fn(&mut Value); 10] = [
        |pod| pod["spec"]["hostNetwork"] = json!(true),
        |pod| pod["spec"]["volumes"][0] = json!({"name": "host", "hostPath": {"path": "/"}}),
        |pod| pod["spec"]["containers"][0]["securityContext"]["privileged"] = json!(true),
        |pod| {
            pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] =
                json!(true);
        },
        |pod| pod["spec"]["initContainers"][0]["securityContext"]["capabilities"] = json!({}),
        |pod| {
            pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] =
                json!(["SYS_ADMIN"]);
        },
        |pod| pod["spec"]["securityContext"]["runAsNonRoot"] = json!(null),
        |pod| pod["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(0),
        |pod| pod["spec"]["securityContext"]["seccompProfile"] = json!({"type": "Unconfined"}),
        |pod| pod["spec"]["containers"][0]["ports"] = json!([{"hostPort": 80}]),
    ];
    for (number, break_it) in breaks.iter().enumerate() {
        let mut pod = good.clone();
        break_it(&mut pod);
        assert!(!breaches(&pod).is_empty(), "number {number} is not found");
    }
}

#[test]
fn the_pod_is_as_it_was_agreed_on() {
    let row = row(|row| {
        row.spec.command = vec!["agent".to_owned()];
        row.spec.args = vec!["--price".to_owned(), "$5 $(X)".to_owned()];
        row.spec.repo = Some("https://loom.example/git/acme/shop.git".to_owned());
        row.spec.branch = Some("main".to_owned());
        row.tags = BTreeMap::from([("team".to_owned(), "loom.dev/spoof".to_owned())]);
    });
    let pod = built(
        &row,
        &config(&[("LOOM_SERVER_WEAVER_TOLERATIONS", "dedicated=weavers:NoSchedule,spot")]),
    );
    let golden = include_str!("golden.json");
    let text = serde_json::to_string_pretty(&pod).unwrap();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/pod/golden.json");
        std::fs::write(path, text + "\n").unwrap();
        return;
    }
    assert_eq!(
        pod,
        serde_json::from_str::<Value>(golden).unwrap(),
        "UPDATE_SNAPSHOTS=1 writes it anew:\n{text}"
    );
}

#[test]
fn what_is_given_is_meant_as_it_stands() {
    let pod: Pod = serde_json::from_value(built(&row(|_| {}), &config(&[]))).unwrap();
    let env = pod.spec.unwrap().containers.remove(0).env.unwrap();
    let greeting = env.iter().find(|var| var.name == "GREETING").unwrap();
    assert_eq!(greeting.value.as_deref(), Some("a $$(HOME) and $$5"));
}

#[test]
fn only_our_own_repositories_are_shown_the_token() {
    let clone = |repo: &str| {
        let pod = built(&row(|row| row.spec.repo = Some(repo.to_owned())), &config(&[]));
        pod["spec"]["initContainers"][0].to_string()
    };
    assert!(clone("https://loom.example/git/a/b.git").contains("GIT_CONFIG_VALUE_0"));
    for other in
        ["https://loom.example.evil.org/x", "https://github.com/a/b", "https://loom.examplex/y"]
    {
        assert!(!clone(other).contains("loom-token"), "{other}");
    }
}
