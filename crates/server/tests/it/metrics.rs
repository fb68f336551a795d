//! Metrics: as Prometheus wants them, each with its meaning, and none that the guide, a dashboard or an
//! alert knows otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Command, Stdio},
};

use loom_core::telemetry::{Kind, Metric};
use loom_testkit::{TestApp, eventually};
use serde_json::json;

/// A server that was used, and its metrics.
async fn after_traffic() -> (TestApp, String) {
    let app = TestApp::start().await;
    let admin = app.admin("ada@example.com").await;
    let body = json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": true});
    admin.post("/v1/chat/completions", &body).await.expect(200);
    app.llm_requests(1).await;
    let thread = format!("/api/threads/T-{}", loom_core::id::new_uuid(app.clock.now()));
    admin.put(&thread, &json!({"title": "a", "messages": []})).await.expect(201);
    admin.get(&thread).await.expect(200);
    admin.get("/docs/search?q=metrics").await.expect(200);
    let run = "/api/admin/jobs/job-history-cleanup/run";
    admin.post(run, &json!({})).await.expect(202);
    let text = eventually(async || {
        let text = app.anonymous().get("/metrics").await.expect(200).text;
        text.contains("loom_job_duration_seconds").then_some(text)
    })
    .await;
    (app, text)
}

#[tokio::test]
async fn metrics_name_routes_by_their_template_and_nobody_by_an_id() {
    let (app, text) = after_traffic().await;
    let line = r#"loom_http_requests_total{method="GET",route="/api/threads/{id}",status="200"}"#;
    assert!(text.contains(line), "{text}");
    let ids = text.lines().find(|line| {
        let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
        let labels = labels.map_or("", |(labels, _)| labels);
        let mut words = labels.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
        labels.contains("T-")
            || labels.contains('@')
            || words.any(|word| word.len() == 36 && word.parse::<uuid::Uuid>().is_ok())
    });
    assert_eq!(ids, None);
    let url = format!("{}/api/nothing/here", app.url());
    app.http.get(url).send().await.unwrap();
    let text = app.anonymous().get("/metrics").await.expect(200).text;
    assert!(text.contains(r#"route="(none)",status="404""#) && !text.contains("nothing"), "{text}");
}

/// Words that Prometheus's own check refuses in a name, and what else it looks at.
fn lint(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let (mut helps, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            helps.insert(name, help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            if kinds.insert(name, kind).is_some() {
                problems.push(format!("{name}: twice"));
            }
        } else if !line.is_empty() {
            let name = line.split(['{', ' ']).next().unwrap();
            let parts = ["_bucket", "_sum", "_count"];
            let base = parts.iter().find_map(|part| name.strip_suffix(part));
            let base = base.filter(|base| kinds.get(base) == Some(&"histogram")).unwrap_or(name);
            if !kinds.contains_key(base) {
                problems.push(format!("{name}: no TYPE"));
            }
        }
    }
    for (&name, &kind) in &kinds {
        let mut problem = |what: &str| problems.push(format!("{name}: {what}"));
        if helps.get(name).is_none_or(|help| help.len() < 5) {
            problem("no HELP");
        }
        if (kind == "counter") != name.ends_with("_total") {
            problem("_total is for counters, and for all of them");
        }
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            problem("a name is snake_case");
        }
        for word in name.trim_end_matches("_total").split('_') {
            if ["counter", "gauge", "histogram", "summary", "bucket", "sum", "count"]
                .contains(&word)
            {
                problem("the name holds a kind");
            }
            let units = [
                "ms",
                "milliseconds",
                "microseconds",
                "nanoseconds",
                "minutes",
                "hours",
                "days",
                "kilobytes",
                "megabytes",
                "gigabytes",
                "kb",
                "mb",
                "gb",
                "kib",
                "mib",
                "percent",
                "bits",
                "s",
                "sec",
                "secs",
                "celsius",
                "mhz",
            ];
            if units.contains(&word) {
                problem("not a base unit, or an abbreviated one");
            }
        }
    }
    problems
}

#[tokio::test]
async fn metrics_are_as_prometheus_wants_them_and_each_has_its_meaning() {
    let (_app, text) = after_traffic().await;
    assert_eq!(lint(&text), Vec::<String>::new());
    // The real one too, where it is.
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    if let Ok(mut promtool) = promtool {
        std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let said = promtool.wait_with_output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
}

#[test]
fn the_check_of_metrics_finds_what_is_wrong() {
    for bad in [
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a it counts\n# TYPE a counter\na 1\n",
        "# HELP a_total it is\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a_ms it takes\n# TYPE a_ms gauge\na_ms 1\n",
        "# HELP a_gauge it is\n# TYPE a_gauge gauge\na_gauge 1\n",
        "lonely 1\n",
    ] {
        assert!(!lint(bad).is_empty(), "{bad}");
    }
}

fn table() -> BTreeMap<&'static str, Metric> {
    loom_server::metrics().map(|metric| (metric.name, metric)).collect()
}

#[test]
fn the_table_of_metrics_is_sound() {
    assert_eq!(table().len(), loom_server::metrics().count(), "a metric is there twice");
    for metric in table().values() {
        let Metric { name, kind, help, labels } = metric;
        assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert!(
            help.len() > 10 && help.ends_with('.') || help.starts_with("1, "),
            "{name}: {help}"
        );
        let ids = ["id", "org", "user", "thread", "email", "path", "model"];
        assert!(
            !labels.iter().any(|label| ids.contains(label)),
            "{name} has a label without bounds"
        );
    }
}

#[tokio::test]
async fn what_is_measured_is_in_the_table_with_these_labels() {
    let (_app, text) = after_traffic().await;
    let table = table();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part));
        let metric = base.and_then(|base| table.get(base)).or_else(|| table.get(name));
        let Some(metric) = metric else { panic!("{name} is in no table of a crate (METRICS)") };
        let found: BTreeSet<_> = labels
            .split("\",")
            .filter_map(|pair| pair.split_once("=\""))
            .map(|(label, _)| label)
            .filter(|label| *label != "le")
            .collect();
        assert_eq!(found, metric.labels.iter().copied().collect(), "{name}");
    }
}

#[tokio::test]
async fn counters_of_which_an_increase_alerts_are_there_before_anything_happens() {
    let app = TestApp::start().await;
    let text = app.anonymous().get("/metrics").await.expect(200).text;
    let alerts = std::fs::read_to_string(root().join("deploy/grafana/alerts.yaml")).unwrap();
    // Those of the collector are there when there is one.
    let watched: BTreeSet<_> = alerts
        .split("increase(")
        .skip(1)
        .filter_map(|rest| rest.split(['{', '[']).next())
        .filter(|name| !name.starts_with("loom_otlp_"))
        .collect();
    assert!(watched.len() >= 3, "{watched:?}");
    for name in watched {
        assert!(text.contains(&format!("\n{name}{{")), "{name}: {text}");
    }
    for status in ["failed", "abandoned"] {
        let series =
            format!(r#"loom_job_runs_total{{job="job-history-cleanup",status="{status}"}} 0"#);
        assert!(text.contains(&series), "{series}: {text}");
    }
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The names of metrics in a text: what begins as ours do.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_name(c))
        .filter(|word| word.starts_with("loom_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_guide_tells_of_every_metric() {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let told = names(&page);
    let missing: Vec<_> = table().into_keys().filter(|name| !told.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/operations.md says nothing of {missing:?}");
}

#[test]
fn the_guide_tells_of_every_code_of_health() {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let sources = files("crates").into_iter().filter(|(path, _)| {
        let path = path.to_string_lossy();
        path.ends_with(".rs") && path.contains("/src/")
    });
    let mut codes = BTreeSet::new();
    for (_, text) in sources {
        let is_code = |word: &&str| {
            word.len() > 3 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
        };
        // The first argument of `Component::code`, and what is chosen for it beforehand.
        for call in text.split(".code(").skip(1).chain(text.split("let code = if").skip(1)) {
            // What is only read has no argument.
            if call.starts_with(')') {
                continue;
            }
            let end = if call.trim_start().starts_with('"') { 2 } else { 4 };
            let words = call.split('"').take(end).skip(1).step_by(2);
            codes.extend(words.filter(is_code).map(str::to_owned));
        }
    }
    assert!(codes.len() > 20, "{codes:?}");
    let missing: Vec<_> =
        codes.iter().filter(|code| !page.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md says nothing of {missing:?}");
}

pub(crate) fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                files.push((path, text));
            }
        }
    }
    files
}

#[test]
fn dashboards_and_alerts_name_metrics_that_there_are() {
    let table = table();
    let known = |name: &str| {
        ["", "_bucket", "_sum", "_count"].iter().any(|part| {
            let base = name.strip_suffix(part);
            base.and_then(|base| table.get(base))
                .is_some_and(|metric| part.is_empty() != (metric.kind == Kind::Histogram))
        })
    };
    let mut used = 0;
    for (path, text) in files("deploy/grafana") {
        let expressions: Vec<String> = if path.extension().is_some_and(|kind| kind == "json") {
            let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(dashboard["uid"].is_string() && dashboard["title"].is_string(), "{path:?}");
            let panels = dashboard["panels"].as_array().unwrap();
            let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
            targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
        } else {
            text.lines()
                .filter_map(|line| line.trim().strip_prefix("expr: "))
                .map(str::to_owned)
                .collect()
        };
        for expression in expressions {
            let names = names(&expression);
            used += names.len();
            for name in names {
                assert!(known(&name), "{path:?} asks for {name}, which there is not: {expression}");
            }
        }
    }
    assert!(used > 40, "only {used} uses found: is deploy/grafana read at all?");
}
