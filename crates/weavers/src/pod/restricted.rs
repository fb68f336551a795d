//! The rules of Pod Security's level `restricted`, for tests: of the pod as it is made, and as a cluster has it.

use serde_json::{Value, json};

/// What `restricted` of the Pod Security Standards wants, as far as it concerns a pod of Linux: the path of each
/// field that is not as it should be.
pub(crate) fn breaches(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut breaches = Vec::new();
    let mut want = |holds: bool, what: String| {
        if !holds {
            breaches.push(what);
        }
    };
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        want(!spec[host].as_bool().unwrap_or(false), host.to_owned());
    }
    let kinds = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let kind = volume.as_object().unwrap().keys().find(|key| *key != "name");
        want(kind.is_some_and(|kind| kinds.contains(&kind.as_str())), format!("volumes {volume}"));
    }
    let of_pod = &spec["securityContext"];
    want(of_pod["sysctls"].as_array().is_none_or(Vec::is_empty), "sysctls".to_owned());
    let all = ["initContainers", "containers", "ephemeralContainers"];
    for container in all.iter().flat_map(|key| spec[*key].as_array().into_iter().flatten()) {
        let own = &container["securityContext"];
        let name = &container["name"];
        let either = |key: &str| if own[key].is_null() { &of_pod[key] } else { &own[key] };
        want(own["allowPrivilegeEscalation"] == false, format!("{name} allowPrivilegeEscalation"));
        want(!own["privileged"].as_bool().unwrap_or(false), format!("{name} privileged"));
        want(either("runAsNonRoot") == true, format!("{name} runAsNonRoot"));
        want(either("runAsUser") != 0, format!("{name} runAsUser"));
        let seccomp = &either("seccompProfile")["type"];
        want(
            seccomp == "RuntimeDefault" || seccomp == "Localhost",
            format!("{name} seccompProfile"),
        );
        let dropped = own["capabilities"]["drop"].as_array();
        want(dropped.is_some_and(|all| all.contains(&json!("ALL"))), format!("{name} drop"));
        let added = own["capabilities"]["add"].as_array().into_iter().flatten();
        want(added.into_iter().all(|one| one == "NET_BIND_SERVICE"), format!("{name} add"));
        want(either("seLinuxOptions").is_null(), format!("{name} seLinuxOptions"));
        let apparmor = &either("appArmorProfile")["type"];
        want(apparmor != "Unconfined", format!("{name} appArmorProfile"));
        let mount = own["procMount"].as_str();
        want(mount.is_none_or(|kind| kind == "Default"), format!("{name} procMount"));
        for port in container["ports"].as_array().into_iter().flatten() {
            want(port["hostPort"].as_i64().unwrap_or(0) == 0, format!("{name} hostPort"));
        }
    }
    breaches
}
