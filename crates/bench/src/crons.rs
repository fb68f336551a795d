//! The look for runs of monitored jobs that did not come: how long it takes over fleets of several sizes with as
//! many due, and with more due in the largest.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    loom::{self, Loom},
    process::Fleet,
    stats::median,
};

/// Over 100,000 monitors with 1,000 due.
const GOAL_MS: f64 = 1_000.0;
const ROUNDS: usize = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Monitors, in steps: each is measured
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    monitors: Vec<i64>,
    /// Monitors that are due in each look
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000])]
    due: Vec<i64>,
    /// The server's binary [default: loom-server beside this program]
    #[arg(long)]
    loom: Option<PathBuf>,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let mut fleet = Fleet::new()?;
    let result = tokio::select! {
        result = measure(options, &mut fleet) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    fleet.stop().await?;
    result
}

struct Bench {
    loom: Loom,
    http: Client,
    db: PgConnection,
}

async fn measure(options: &Options, fleet: &mut Fleet) -> Result<()> {
    let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("loom-server"));
    let binary = options.loom.clone().map_or_else(beside, Ok)?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let loom = loom::start(fleet, &binary, nowhere, &[]).await.context("starting Loom")?;
    let url = loom_db::embedded::find_running(&fleet.dir.join("data"))
        .await?
        .context("the server's PostgreSQL does not run")?;
    let mut db = PgConnection::connect(url.expose()).await?;
    // What the bench itself looks up is not to be counted among the scans.
    db.execute("SET statement_timeout = 0; SET enable_seqscan = off").await?;
    // Another part of the program may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder().no_proxy().build()?;
    let mut bench = Bench { loom, http, db };
    bench.template().await?;
    crate::print(
        "| monitors | due | look, median ms | µs a run | rows read in scans of the table | ≤ 1 s |\n|--:|--:|--:|--:|--:|---|\n",
    );
    for monitors in &options.monitors {
        bench.grow(*monitors).await?;
        for due in options.due.iter().filter(|due| *due <= monitors) {
            bench.look(*monitors, *due).await?;
        }
    }
    Ok(())
}

impl Bench {
    /// What all of the others are copies of.
    async fn template(&mut self) -> Result<()> {
        let url = format!("http://{}/api/crons/monitors", self.loom.address);
        let body = json!({"slug": "template", "schedule": {"type": "interval", "value": 1, "unit": "day"}});
        let answer = self.http.post(url).bearer_auth(&self.loom.key).json(&body).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        // Nobody is to be mailed a hundred thousand times.
        self.db.execute("UPDATE cron_monitors SET alerts = '{}'").await?;
        Ok(())
    }

    /// So many monitors, each waited for in a day.
    async fn grow(&mut self, monitors: i64) -> Result<()> {
        sqlx::query(
            "INSERT INTO cron_monitors SELECT (jsonb_populate_record(m, jsonb_build_object(
                 'id', gen_random_uuid(), 'slug', 'job-' || n, 'name', 'job-' || n,
                 'ping_key', gen_random_uuid(), 'badge_key', 'badge-' || n))).*
               FROM cron_monitors m,
                    generate_series((SELECT count(*) FROM cron_monitors), $1) n
              WHERE m.slug = 'template'",
        )
        .bind(monitors)
        .execute(&mut self.db)
        .await?;
        self.db
            .execute(
                "INSERT INTO cron_environments (monitor_id, name, org_id, expected_at, due_at)
                 SELECT id, 'production', org_id, now() + interval '1 day', now() + interval '1 day 5 min'
                   FROM cron_monitors WHERE slug LIKE 'job-%' ON CONFLICT DO NOTHING",
            )
            .await?;
        self.db.execute("VACUUM (ANALYZE) cron_monitors, cron_environments").await?;
        Ok(())
    }

    /// The time of the job that looks, with so many due.
    async fn look(&mut self, monitors: i64, due: i64) -> Result<()> {
        let mut times = Vec::new();
        let before = self.rows_scanned().await?;
        for _ in 0..ROUNDS * 4 {
            if times.len() == ROUNDS {
                break;
            }
            sqlx::query(
                "UPDATE cron_environments
                    SET expected_at = now() - interval '20 min', due_at = now() - interval '15 min',
                        judged_at = NULL, incident_id = NULL, failures = 0
                  WHERE (monitor_id, name) IN
                        (SELECT monitor_id, name FROM cron_environments WHERE due_at > now()
                          ORDER BY due_at DESC LIMIT $1)",
            )
            .bind(due)
            .execute(&mut self.db)
            .await?;
            self.db.execute("DELETE FROM cron_incidents").await?;
            let (took, handled) = self.run("cron-missed").await?;
            // Once a minute the job runs by itself, and may have been first.
            if handled >= due {
                times.push(took);
            }
        }
        let scanned = self.rows_scanned().await? - before;
        let took = median(times).context("nothing was measured")?;
        crate::print(&format!(
            "| {monitors} | {due} | {took:.0} | {:.0} | {} | {} |\n",
            took * 1_000.0 / due as f64,
            scanned,
            if took <= GOAL_MS { "yes" } else { "no" },
        ));
        Ok(())
    }

    async fn rows_scanned(&mut self) -> Result<i64> {
        self.db.execute("SELECT pg_stat_clear_snapshot()").await?;
        // What was read is told of within a second.
        sleep(Duration::from_millis(1_200)).await;
        Ok(sqlx::query_scalar(
            "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'cron_environments'",
        )
        .fetch_one(&mut self.db)
        .await?)
    }

    /// Runs a job now; gives its milliseconds, and what it handled.
    async fn run(&mut self, job: &str) -> Result<(f64, i64)> {
        let url = format!("http://{}/api/admin/jobs/{job}/run", self.loom.address);
        let id = loop {
            let answer = self.http.post(&url).bearer_auth(&self.loom.key).send().await?;
            // It runs by itself just now.
            if answer.status() == 409 {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            ensure!(answer.status().is_success(), "{}", answer.text().await?);
            let run: Value = answer.json().await?;
            let id = run.get("run_id").and_then(Value::as_str).context("no run_id")?;
            break id.parse::<Uuid>()?;
        };
        for _ in 0..12_000 {
            let ended: Option<(String, f64, i64)> = sqlx::query_as(
                "SELECT status, extract(epoch FROM finished_at - started_at)::float8 * 1000, items_handled
                   FROM job_runs WHERE id = $1 AND finished_at IS NOT NULL",
            )
            .bind(id)
            .fetch_optional(&mut self.db)
            .await?;
            if let Some((status, took, handled)) = ended {
                ensure!(status == "succeeded", "{job} {status}");
                return Ok((took, handled));
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("{job} did not end within two minutes")
    }
}
