//! What `deploy/` gives away is what Kubernetes, Compose and this server understand: no field and no setting in it
//! is misspelt.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{
            ConfigMap, LimitRange, Namespace, PersistentVolumeClaim, ResourceQuota, Secret,
            Service, ServiceAccount,
        },
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
        rbac::v1::{Role, RoleBinding},
    },
    serde::{Serialize, de::DeserializeOwned},
};
use loom_server::config::{self, Overrides};
use serde_json::Value;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").canonicalize().unwrap()
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let read = |text: &str| -> Value {
        let value = serde_saphyr::from_str(text);
        value.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    text.split("\n---\n").map(read).collect()
}

/// The YAML files of a folder, those of its folders too.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
    found
}

fn manifests() -> Vec<(PathBuf, Value)> {
    let files = files(&deploy().join("kubernetes"));
    let manifests = files.into_iter().filter(|path| !path.ends_with("kustomization.yaml"));
    manifests
        .flat_map(|path| documents(&path).into_iter().map(move |it| (path.clone(), it)))
        .collect()
}

/// The manifest of this kind and name in this folder.
fn manifest(folder: &str, kind: &str, name: &str) -> Value {
    let mut found = manifests().into_iter().filter(|(path, it)| {
        path.parent().unwrap().ends_with(folder)
            && it["kind"] == kind
            && it["metadata"]["name"] == name
    });
    found.next().unwrap_or_else(|| panic!("no {kind} {name} in {folder}")).1
}

/// What is read is what was written: a field that the type does not know would be missing.
fn strictly<T: DeserializeOwned + Serialize>(value: &Value) -> Result<(), String> {
    let typed: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let again = serde_json::to_value(typed).map_err(|error| error.to_string())?;
    if again == *value { Ok(()) } else { Err(format!("is read as {again:#}\nof {value:#}")) }
}

fn decode(value: &Value) -> Result<(), String> {
    let kind = (value["apiVersion"].as_str().unwrap_or(""), value["kind"].as_str().unwrap_or(""));
    let decode = match kind {
        ("v1", "ConfigMap") => strictly::<ConfigMap>,
        ("v1", "LimitRange") => strictly::<LimitRange>,
        ("v1", "Namespace") => strictly::<Namespace>,
        ("v1", "PersistentVolumeClaim") => strictly::<PersistentVolumeClaim>,
        ("v1", "ResourceQuota") => strictly::<ResourceQuota>,
        ("v1", "Secret") => strictly::<Secret>,
        ("v1", "Service") => strictly::<Service>,
        ("v1", "ServiceAccount") => strictly::<ServiceAccount>,
        ("apps/v1", "Deployment") => strictly::<Deployment>,
        ("autoscaling/v2", "HorizontalPodAutoscaler") => strictly::<HorizontalPodAutoscaler>,
        ("networking.k8s.io/v1", "Ingress") => strictly::<Ingress>,
        ("networking.k8s.io/v1", "NetworkPolicy") => strictly::<NetworkPolicy>,
        ("policy/v1", "PodDisruptionBudget") => strictly::<PodDisruptionBudget>,
        ("rbac.authorization.k8s.io/v1", "Role") => strictly::<Role>,
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => strictly::<RoleBinding>,
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            strictly::<ValidatingAdmissionPolicy>
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            strictly::<ValidatingAdmissionPolicyBinding>
        }
        other => return Err(format!("of an unknown kind: {other:?}")),
    };
    decode(value)
}

#[test]
fn every_manifest_is_what_kubernetes_knows_to_the_last_field() {
    let manifests = manifests();
    assert!(manifests.len() > 20, "are they found at all? {}", manifests.len());
    for (path, manifest) in &manifests {
        decode(manifest).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let mut misspelt = manifest("server", "Deployment", "loom-server");
    misspelt["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 5.into();
    assert!(decode(&misspelt).is_err(), "a misspelt field is found");
}

#[test]
fn every_file_is_in_the_kustomization_beside_it() {
    let mut folders = 0;
    for folder in fs::read_dir(deploy().join("kubernetes")).unwrap() {
        let folder = folder.unwrap().path();
        folders += 1;
        let all = documents(&folder.join("kustomization.yaml")).remove(0);
        let listed = |name: &str| all[name].as_array().cloned().unwrap_or_default();
        let mut named: BTreeSet<String> =
            listed("resources").iter().map(|it| it.as_str().unwrap().to_owned()).collect();
        named.extend(
            listed("patches").iter().filter_map(|it| Some(it["path"].as_str()?.to_owned())),
        );
        for name in &named {
            assert!(folder.join(name).exists(), "{} names {name}", folder.display());
        }
        for file in files(&folder) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let is_there = name == "kustomization.yaml" || named.contains(name);
            assert!(is_there, "{} is in no kustomization", file.display());
        }
    }
    assert!(folders >= 5, "{folders}");
}

type Vars = BTreeMap<String, String>;

fn strings(map: &Value) -> Vars {
    let map = map.as_object().unwrap().iter();
    map.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// What the server says to these settings, but for those that are still to be filled in.
fn problems(vars: Vars) -> Vec<String> {
    let loaded = config::load(vars, Overrides::default());
    assert!(loaded.unknown.is_empty(), "nothing reads {:?}", loaded.unknown);
    loaded.problems.iter().map(ToString::to_string).collect()
}

const MASTER_KEY: &str = "LOOM_SERVER_MASTER_KEY";

#[test]
fn the_settings_in_the_manifests_are_sound_once_the_master_key_is_made() {
    let mut vars = strings(&manifest("server", "ConfigMap", "loom-server")["data"]);
    let secret = strings(&manifest("example", "Secret", "loom-server")["stringData"]);
    vars.extend(secret);
    for example in [false, true] {
        if example {
            vars.extend(strings(&manifest("example", "ConfigMap", "loom-server")["data"]));
        }
        let found = problems(vars.clone());
        assert!(found.len() == 1 && found[0].contains(MASTER_KEY), "{found:?}");
        vars.insert(MASTER_KEY.to_owned(), "5a".repeat(31) + "01");
        let found = problems(vars.clone());
        assert!(found.is_empty(), "{found:?}");
        vars.insert(MASTER_KEY.to_owned(), "to-be-made".to_owned());
    }
}

#[test]
fn a_pod_has_the_time_that_the_server_takes_to_end() {
    let vars = strings(&manifest("server", "ConfigMap", "loom-server")["data"]);
    let secs = |name: &str| vars[name].parse::<i64>().unwrap();
    let (delay, grace) =
        (secs("LOOM_SERVER_SHUTDOWN_DELAY_SECS"), secs("LOOM_SERVER_SHUTDOWN_GRACE_SECS"));
    let deployment = manifest("server", "Deployment", "loom-server");
    let pod = &deployment["spec"]["template"]["spec"];
    // Requests have the grace, and after them jobs and what is to be written.
    assert!(pod["terminationGracePeriodSeconds"].as_i64().unwrap() >= delay + 2 * grace + 10);
    let readiness = &pod["containers"][0]["readinessProbe"];
    let noticed = readiness["periodSeconds"].as_i64().unwrap()
        * readiness["failureThreshold"].as_i64().unwrap();
    assert!(delay > noticed, "the delay is over before the probe has failed");
}

#[test]
fn the_settings_of_compose_are_sound() {
    let compose = documents(&deploy().join("compose.yaml")).remove(0);
    let server = &compose["services"]["loom-server"];
    let mut vars = strings(&server["environment"]);
    // What Compose puts in.
    for value in vars.values_mut() {
        if let Some((name, default)) =
            value.clone().strip_prefix("${").and_then(|it| it.split_once(":-"))
        {
            assert!(!name.is_empty());
            default.trim_end_matches('}').clone_into(value);
        }
    }
    let found = problems(vars);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(server["read_only"], true);
}
