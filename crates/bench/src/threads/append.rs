//! Appends of one message to threads of several lengths, beside `pgbench` with the same statements.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use loom_core::Clock;
use loom_threads::Role;
use serde_json::json;
use tokio::{process::Command, task::JoinSet};
use uuid::Uuid;

use super::{corpus, load::Loader};
use crate::loom::Loom;

/// Writers, each with a thread of its own.
const WRITERS: usize = 2;
const LENGTHS: [u64; 4] = [10, 1_000, 10_000, 90_000];
const ROUNDS: usize = 3;

pub(super) async fn measure(
    loom: &Loom,
    http: &reqwest::Client,
    loader: &mut Loader,
    url: &str,
    dir: &Path,
    seconds: u64,
) -> Result<()> {
    crate::print(
        "\n| messages in the thread | Loom appends/s | pgbench/s | ratio | to the shortest |\n|--:|--:|--:|--:|--:|\n",
    );
    let mut text = corpus::Numbers(7);
    let text = loader.words.prose(&mut text, 60);
    let mut shortest = None;
    for length in LENGTHS {
        let mut threads = Vec::new();
        for _ in 0..WRITERS {
            threads.push(loader.long_thread(length).await?);
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(through_loom(loom, http, &threads, &text, seconds).await?);
            theirs.push(through_pgbench(loader.org, &threads, &text, url, dir, seconds).await?);
        }
        let middle = |rates| crate::stats::median(rates).unwrap_or(f64::NAN);
        let (ours, theirs) = (middle(ours), middle(theirs));
        let first = *shortest.get_or_insert(ours);
        crate::print(&format!(
            "| {length} | {ours:.0} | {theirs:.0} | {:.2} | {:.2} × the time |\n",
            ours / theirs,
            first / ours
        ));
    }
    Ok(())
}

async fn through_loom(
    loom: &Loom,
    http: &reqwest::Client,
    threads: &[Uuid],
    text: &str,
    seconds: u64,
) -> Result<f64> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let began = Clock::system().now().timestamp_micros();
    let mut writers = JoinSet::new();
    for thread in threads {
        let url = format!("http://{}/api/threads/T-{thread}/messages", loom.address);
        let (http, key, text) = (http.clone(), loom.key.clone(), text.to_owned());
        writers.spawn(async move {
            let mut count = 0_u64;
            while Instant::now() < until {
                let id = format!("{began}-{count}");
                let body = json!({ "messages": [{
                    "id": id, "role": "user", "content": text,
                }]});
                let request =
                    http.post(&url).bearer_auth(&key).header("content-type", "application/json");
                let answer = request.body(body.to_string()).send().await?;
                let status = answer.status();
                let body = answer.text().await?;
                ensure!(status == 200, "{body}");
                count += 1;
            }
            Ok(count)
        });
    }
    let mut all = 0;
    while let Some(count) = writers.join_next().await {
        all += count??;
    }
    Ok(all as f64 / seconds as f64)
}

/// A `pgbench` for each thread, with what an append sends.
async fn through_pgbench(
    org: Uuid,
    threads: &[Uuid],
    text: &str,
    url: &str,
    dir: &Path,
    seconds: u64,
) -> Result<f64> {
    let content = corpus::json(text);
    let (tsv, _) = corpus::indexed(Role::User, &content);
    let tsv = tsv.replace('\'', "''");
    let mut runs = JoinSet::new();
    for (index, thread) in threads.iter().enumerate() {
        let script = format!(
            "BEGIN;\n\
             SELECT last_seq + 1 AS seq, version, message_count, message_bytes, title, tags, git, agent_state, extra, \
             workspace, client, provider, model, created_at, updated_at, deleted_at FROM threads \
             WHERE id = '{thread}' AND org_id = '{org}' FOR UPDATE \\gset\n\
             SELECT given.id, stored.seq FROM UNNEST(ARRAY['p' || :seq]) AS given (id) CROSS JOIN LATERAL (SELECT seq \
             FROM thread_messages WHERE org_id = '{org}' AND thread_id = '{thread}' AND id = given.id LIMIT 1) AS stored;\n\
             INSERT INTO thread_messages (org_id, thread_id, seq, id, role, content, created_at, bytes, digest) \
             VALUES ('{org}', '{thread}', :seq, 'p' || :seq, 'user', '{content}', now(), {bytes}, sha256('x'));\n\
             INSERT INTO thread_search (org_id, thread_id, seq, role, at, digest, tsv) \
             VALUES ('{org}', '{thread}', :seq, 'user', now(), '\\x0011223344556677', '{tsv}') \
             ON CONFLICT ON CONSTRAINT thread_search_pkey DO UPDATE SET tsv = excluded.tsv;\n\
             UPDATE threads SET version = version + 1, last_seq = :seq, message_count = message_count + 1, \
             message_bytes = message_bytes + {bytes}, updated_at = now(), last_activity_at = now() \
             WHERE id = '{thread}' AND org_id = '{org}';\n\
             COMMIT;\n",
            bytes = content.len(),
        );
        let file = dir.join(format!("append{index}.sql"));
        std::fs::write(&file, script)?;
        let mut command = Command::new("pgbench");
        command.args(["-n", "-c", "1", "-T", &seconds.to_string(), "-f"]).arg(&file).arg(url);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        runs.spawn(async move { command.output().await });
    }
    let mut all = 0.0;
    while let Some(output) = runs.join_next().await {
        let output = output?.context("pgbench is needed")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let tps = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let tps =
            tps.and_then(|rest| rest.split(' ').next()).and_then(|tps| tps.parse::<f64>().ok());
        all += tps.with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    }
    Ok(all)
}
