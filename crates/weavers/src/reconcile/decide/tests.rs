//! Each state that a row and a pod can be in together, and what is to be done.

#![allow(clippy::needless_pass_by_value, reason = "tests read better with literals")]

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::Pod;
use loom_core::id::{OrgId, WeaverId};
use serde_json::{Value, json};

use super::{Action, decide};
use crate::{
    model::{Change, Network, Row, Spec, Status, Trouble, pod_name},
    network,
};

const UID: &str = "6d5c1d5a-0000-4000-8000-000000000001";

fn at(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + secs, 0).unwrap()
}

fn text(secs: i64) -> String {
    at(secs).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Made at 0, four hours to live.
pub(crate) fn row() -> Row {
    let id = WeaverId("01900000-0000-7000-8000-000000000001".parse().unwrap());
    Row {
        id,
        org_id: OrgId("01900000-0000-7000-8000-000000000002".parse().unwrap()),
        owner_id: None,
        installation: "0123456789abcdef".to_owned(),
        spec: Spec { image: "fake/agent".to_owned(), lifetime_hours: 4.0, ..Spec::default() },
        sealed_env: None,
        tags: std::collections::BTreeMap::new(),
        network: Network::Internet,
        cpu_millis: 2000,
        memory_bytes: 16 << 30,
        ephemeral_bytes: 10 << 30,
        budget_nanousd: None,
        idle_timeout_secs: None,
        status: Status::Pending,
        reason_code: None,
        reason: None,
        ending: None,
        pod_name: pod_name(id),
        pod_uid: None,
        node: None,
        trouble: None,
        restarts: 0,
        exit_code: None,
        created_at: at(0),
        scheduled_at: None,
        started_at: None,
        ready_at: None,
        exited_at: None,
        ended_at: None,
        expires_at: at(4 * 3600),
        warned_at: None,
        active_at: at(0),
        version: 1,
    }
}

fn known() -> Row {
    Row { pod_uid: Some(UID.to_owned()), ..row() }
}

fn running() -> Row {
    let at = Some(at(2));
    let node = Some("node-1".to_owned());
    let status = Status::Running;
    Row { status, node, scheduled_at: at, started_at: at, ready_at: at, ..known() }
}

fn pod(status: Value) -> Pod {
    let row = row();
    let labels = json!({network::LABEL: network::label(row.network, &row.installation)});
    let metadata = json!({"name": "weaver", "uid": UID, "labels": labels});
    serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
}

fn on_a_node(phase: &str, state: Value) -> Pod {
    let conditions = json!([
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": text(2)},
        {"type": "Ready", "status": if phase == "Running" { "True" } else { "False" }, "lastTransitionTime": text(2)},
    ]);
    let main = json!({"name": "weaver", "image": "fake/agent", "imageID": "", "ready": true,
        "restartCount": 0, "state": state});
    let mut pod =
        pod(json!({"phase": phase, "conditions": conditions, "containerStatuses": [main]}));
    pod.spec =
        Some(serde_json::from_value(json!({"containers": [], "nodeName": "node-1"})).unwrap());
    pod
}

fn waiting(reason: &str, message: &str) -> Pod {
    on_a_node("Pending", json!({"waiting": {"reason": reason, "message": message}}))
}

fn runs() -> Pod {
    on_a_node("Running", json!({"running": {"startedAt": text(2)}}))
}

fn exited(code: i32, reason: &str) -> Pod {
    on_a_node(
        if code == 0 { "Succeeded" } else { "Failed" },
        json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": text(2), "finishedAt": text(5)}}),
    )
}

fn going(mut pod: Pod, secs: i64) -> Pod {
    pod.metadata.deletion_timestamp = serde_json::from_value(json!(text(secs))).unwrap();
    pod
}

fn written(row: &Row, pod: Option<&Pod>, secs: i64) -> Change {
    match decide(row, pod, at(secs)).as_slice() {
        [Action::Write(change)] => (**change).clone(),
        other => panic!("{other:?}"),
    }
}

/// The row with a change in it, as the database would have it.
fn applied(row: &Row, change: Change) -> Row {
    let mut row = row.clone();
    row.status = change.status.unwrap_or(row.status);
    row.ending = change.ending.or(row.ending);
    row.pod_uid = change.pod_uid.or(row.pod_uid);
    row.node = change.node.or(row.node);
    row.trouble = change.trouble.unwrap_or(row.trouble);
    row.scheduled_at = change.scheduled_at.or(row.scheduled_at);
    row.started_at = change.started_at.or(row.started_at);
    row.ready_at = change.ready_at.or(row.ready_at);
    row.exited_at = change.exited_at.or(row.exited_at);
    row.exit_code = change.exit_code.or(row.exit_code);
    row
}

fn end_of(change: &Change) -> (Option<Status>, &str) {
    (change.ending, change.reason.as_ref().map_or("", |(code, _)| code))
}

#[test]
fn a_row_without_a_pod_gets_one_and_one_whose_pod_is_gone_is_lost() {
    assert_eq!(decide(&row(), None, at(1)), [Action::CreatePod]);
    assert_eq!(end_of(&written(&running(), None, 10)), (Some(Status::Lost), "pod_gone"));
    let mut other = runs();
    other.metadata.uid = Some("another".to_owned());
    assert_eq!(end_of(&written(&running(), Some(&other), 10)).1, "pod_gone");
}

#[test]
fn what_the_pod_shows_is_written_once() {
    let change = written(&row(), Some(&runs()), 3);
    let phases: Vec<_> = change.events.iter().map(|event| &*event.phase).collect();
    assert_eq!(phases, ["scheduled", "started", "ready"]);
    assert_eq!(change.status, Some(Status::Running));
    assert_eq!(change.pod_uid.as_deref(), Some(UID));
    let row = applied(&row(), change);
    assert_eq!(decide(&row, Some(&runs()), at(4)), [Action::LookAgain(at(4 * 3600 - 300))]);
}

#[test]
fn times_of_a_cluster_whose_clock_is_wrong_stay_between_the_making_and_now() {
    let mut pod = runs();
    let status = json!({"type": "Ready", "status": "True", "lastTransitionTime": text(-50)});
    pod.status.as_mut().unwrap().conditions = Some(vec![serde_json::from_value(status).unwrap()]);
    let change = written(&row(), Some(&pod), 1);
    assert_eq!((change.ready_at, change.started_at), (Some(at(0)), Some(at(1))));
}

#[test]
fn each_way_to_end_has_its_own_word() {
    let said = |reason: &str| {
        let mut pod = exited(137, "Error");
        let status = pod.status.as_mut().unwrap();
        (status.reason, status.message) = (Some(reason.to_owned()), Some("why".to_owned()));
        pod
    };
    let bare = |phase: &str| pod(json!({"phase": phase}));
    let clone = pod(
        json!({"phase": "Failed", "initContainerStatuses": [{"name": "clone", "image": "git", "imageID": "",
        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 128}}}]}),
    );
    let cases = [
        (exited(0, "Completed"), Status::Succeeded, "exited"),
        (exited(3, "Error"), Status::Failed, "crashed"),
        (exited(127, "Error"), Status::Failed, "crashed"),
        (exited(139, "Error"), Status::Failed, "crashed"),
        (exited(137, "OOMKilled"), Status::Failed, "out_of_memory"),
        (exited(128, "StartError"), Status::Failed, "start"),
        (exited(128, "ContainerCannotRun"), Status::Failed, "start"),
        (said("Evicted"), Status::Lost, "evicted"),
        (said("DeadlineExceeded"), Status::Failed, "deadline"),
        (said("NodeLost"), Status::Lost, "node_lost"),
        (said("Terminated"), Status::Lost, "node_shutdown"),
        (said("Preempting"), Status::Lost, "preempted"),
        (said("OutOfmemory"), Status::Failed, "rejected_by_node"),
        (clone, Status::Failed, "clone_failed"),
        (bare("Failed"), Status::Failed, "failed"),
        (bare("Succeeded"), Status::Succeeded, "exited"),
    ];
    for (pod, ending, code) in cases {
        let change = written(&running(), Some(&pod), 10);
        assert_eq!(end_of(&change), (Some(ending), code), "{pod:?}");
        assert_eq!(change.status, Some(Status::Terminating));
        assert!(change.events.iter().any(|event| event.phase == "exit"));
    }
    let change = written(&running(), Some(&exited(3, "Error")), 10);
    assert_eq!((change.exit_code, change.exited_at), (Some(3), Some(at(5))));
    assert!(change.reason.unwrap().1.contains("status 3"));
}

#[test]
fn the_agents_container_decides_also_while_the_pod_is_called_running() {
    let mut pod = exited(0, "Completed");
    pod.status.as_mut().unwrap().phase = Some("Running".to_owned());
    assert_eq!(end_of(&written(&running(), Some(&pod), 10)), (Some(Status::Succeeded), "exited"));
}

#[test]
fn who_took_the_pod_away_is_told_apart() {
    let disrupted = |reason: &str| {
        let mut pod = runs();
        let it =
            json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "m"});
        pod.status
            .as_mut()
            .unwrap()
            .conditions
            .as_mut()
            .unwrap()
            .push(serde_json::from_value(it).unwrap());
        going(pod, 40)
    };
    for (pod, code) in [
        (going(runs(), 40), "deleted_by_hand"),
        (going(exited(137, "Error"), 40), "deleted_by_hand"),
        (disrupted("EvictionByEvictionAPI"), "evicted"),
        (disrupted("PreemptionByScheduler"), "preempted"),
        (disrupted("DeletionByTaintManager"), "node_lost"),
        (disrupted("TerminationByKubelet"), "evicted"),
    ] {
        assert_eq!(end_of(&written(&running(), Some(&pod), 10)), (Some(Status::Lost), code));
    }
}

/// Trouble, and the second at which it is no longer borne.
#[test]
fn trouble_is_borne_for_its_time_and_then_the_end() {
    let unscheduled = pod(
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient memory, 1 Insufficient cpu."}]}),
    );
    let unknown = pod(json!({"phase": "Unknown"}));
    let not_found = "docker.io/x: not found";
    let lookup = "dial tcp: lookup registry: no such host";
    let cases = [
        (waiting("InvalidImageName", "bad"), "image_name", 0, Status::Failed),
        (waiting("ErrImageNeverPull", "absent"), "image_missing", 0, Status::Failed),
        (waiting("ErrImagePull", not_found), "image_pull", 15, Status::Failed),
        (waiting("ErrImagePull", lookup), "image_pull", 120, Status::Failed),
        (waiting("ImagePullBackOff", "Back-off pulling image"), "image_pull", 120, Status::Failed),
        (
            waiting("CreateContainerConfigError", "secret \"s\" not found"),
            "start",
            60,
            Status::Failed,
        ),
        (waiting("CreateContainerError", "no"), "start", 60, Status::Failed),
        (waiting("RunContainerError", "no"), "start", 60, Status::Failed),
        (unscheduled, "unschedulable", 600, Status::Failed),
        (unknown, "node_lost", 300, Status::Lost),
    ];
    for (pod, code, grace, ending) in cases {
        let mut row = known();
        let first = written(&row, Some(&pod), 10);
        if grace == 0 {
            assert_eq!(end_of(&first), (Some(ending), code));
            continue;
        }
        assert_eq!(first.ending, None, "{code}");
        row = applied(&row, first);
        let trouble = row.trouble.clone().unwrap();
        assert_eq!((&*trouble.code, trouble.since), (code, at(10)));
        let early = decide(&row, Some(&pod), at(9 + grace));
        assert_eq!(early, [Action::LookAgain(at(10 + grace))], "{code}");
        assert_eq!(end_of(&written(&row, Some(&pod), 10 + grace)), (Some(ending), code));
    }
}

#[test]
fn what_the_scheduler_lacks_stands_in_plain_words() {
    let pod =
        pod(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
        "message": "0/3 nodes are available: 1 Insufficient cpu, 3 Insufficient memory."}]}));
    let change = written(&known(), Some(&pod), 1);
    let trouble = change.trouble.flatten().unwrap();
    assert!(
        trouble
            .message
            .starts_with("no node of the cluster has room for it: not enough cpu, memory")
    );
}

#[test]
fn the_first_message_stays_and_a_refusal_is_not_waited_out() {
    let first = waiting("ErrImagePull", "pull access denied");
    let row = applied(&known(), written(&known(), Some(&first), 10));
    let later = waiting("ImagePullBackOff", "Back-off pulling image \"x\"");
    assert!(matches!(decide(&row, Some(&later), at(20)).as_slice(), [Action::LookAgain(_)]));
    let end = written(&row, Some(&later), 25);
    assert!(end.reason.unwrap().1.contains("access denied"));
    // One that came too late for the first message takes the next that tells more.
    let row = applied(&known(), written(&known(), Some(&later), 10));
    let better = written(&row, Some(&first), 12).trouble.flatten().unwrap();
    assert!(better.message.contains("access denied"));
    assert_eq!(better.since, at(10));
}

#[test]
fn trouble_that_has_passed_is_forgotten() {
    let message = "m".to_owned();
    let trouble = Trouble { code: "image_pull".to_owned(), message, since: at(5) };
    let row = Row { trouble: Some(trouble), ..known() };
    assert_eq!(written(&row, Some(&runs()), 10).trouble, Some(None));
    // Between two attempts to pull the container is said to be creating.
    let row = Row { node: Some("node-1".into()), scheduled_at: Some(at(2)), ..row };
    let between = waiting("ContainerCreating", "");
    assert!(matches!(decide(&row, Some(&between), at(10)).as_slice(), [Action::LookAgain(_)]));
}

#[test]
fn a_pod_that_the_cluster_does_not_take_is_tried_for_ten_minutes() {
    let message = "exceeded quota".to_owned();
    let trouble = Trouble { code: "quota".to_owned(), message, since: at(5) };
    let row = Row { trouble: Some(trouble), ..row() };
    assert_eq!(decide(&row, None, at(604)), [Action::CreatePod]);
    assert_eq!(end_of(&written(&row, None, 605)), (Some(Status::Failed), "quota"));
}

#[test]
fn a_pod_under_the_policies_of_another_class_is_put_under_those_that_its_row_names() {
    let pod = runs();
    assert!(!decide(&running(), Some(&pod), at(60)).contains(&Action::Relabel));
    let off = Row { network: Network::Off, ..running() };
    assert!(decide(&off, Some(&pod), at(60)).contains(&Action::Relabel));
    let mut bare = pod;
    bare.metadata.labels = None;
    assert!(decide(&running(), Some(&bare), at(60)).contains(&Action::Relabel));
}

#[test]
fn time_and_idleness_end_it_and_it_is_warned_before() {
    let row = running();
    assert_eq!(end_of(&written(&row, Some(&runs()), 4 * 3600)), (Some(Status::Expired), "expired"));
    let warn = 4 * 3600 - 300;
    assert!(!decide(&row, Some(&runs()), at(warn - 1)).contains(&Action::Warn));
    assert!(decide(&row, Some(&runs()), at(warn)).contains(&Action::Warn));
    let told = Row { warned_at: Some(at(warn)), ..row.clone() };
    assert!(!decide(&told, Some(&runs()), at(warn + 1)).contains(&Action::Warn));
    let short = Row { expires_at: at(240), ..row.clone() };
    assert!(!decide(&short, Some(&runs()), at(119)).contains(&Action::Warn));
    assert!(decide(&short, Some(&runs()), at(120)).contains(&Action::Warn));
    let idle = Row { idle_timeout_secs: Some(60), active_at: at(100), ..row };
    assert_eq!(decide(&idle, Some(&runs()), at(159)), [Action::LookAgain(at(160))]);
    assert_eq!(end_of(&written(&idle, Some(&runs()), 160)), (Some(Status::Expired), "idle"));
    let late = Row { started_at: Some(at(130)), ..idle.clone() };
    assert_eq!(decide(&late, Some(&runs()), at(160)), [Action::LookAgain(at(190))]);
    let pulls = Row { status: Status::Pending, started_at: None, ready_at: None, ..idle };
    let pulling = waiting("ContainerCreating", "");
    assert_eq!(decide(&pulls, Some(&pulling), at(300)), [Action::LookAgain(at(warn))]);
}

#[test]
fn what_is_to_end_is_read_deleted_awaited_and_over() {
    let row = Row { ending: Some(Status::Deleted), status: Status::Terminating, ..running() };
    let uid = UID.to_owned();
    let delete = Action::ReadLogsThenDelete { uid: uid.clone() };
    assert_eq!(decide(&row, Some(&runs()), at(10)), [delete]);
    let pod = going(runs(), 15);
    assert_eq!(decide(&row, Some(&pod), at(11)), [Action::LookAgain(at(75))]);
    assert_eq!(decide(&row, Some(&pod), at(75)), [Action::DeleteNow { uid }]);
    assert_eq!(decide(&row, None, at(16)), [Action::End(Status::Deleted)]);
    // What its command said at the end is kept too.
    let last = written(&row, Some(&going(exited(143, "Error"), 15)), 12);
    assert_eq!((last.exit_code, last.ending), (Some(143), None));
    assert_eq!(decide(&Row { ended_at: Some(at(20)), ..row }, None, at(21)), []);
}

#[test]
fn one_that_is_to_end_before_its_pod_was_made_gets_none() {
    let row = Row { ending: Some(Status::Deleted), ..row() };
    assert_eq!(decide(&row, None, at(1)), [Action::End(Status::Deleted)]);
}
