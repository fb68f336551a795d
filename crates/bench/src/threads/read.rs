//! Whole threads, read for the first time and again: what the cache of recent threads gains.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::load::Loader;
use crate::{loom::Loom, stats::percentile};

const THREADS: usize = 40;
const LENGTHS: [u64; 3] = [10, 100, 1_000];
const AGAIN: usize = 5;

pub(super) async fn measure(
    loom: &Loom,
    http: &reqwest::Client,
    loader: &mut Loader,
) -> Result<()> {
    crate::print(
        "\n| messages in the thread | KiB | read first, p50 ms | read again, p50 ms | gain |\n|--:|--:|--:|--:|--:|\n",
    );
    for length in LENGTHS {
        let (mut first, mut again, mut bytes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..THREADS {
            let thread = loader.long_thread(length).await?;
            let url = format!("http://{}/api/threads/T-{thread}", loom.address);
            for round in 0..=AGAIN {
                let started = Instant::now();
                let answer = http.get(&url).bearer_auth(&loom.key).send().await?;
                let status = answer.status();
                let body = answer.bytes().await?;
                let micros = started.elapsed().as_micros() as u64;
                ensure!(status == 200, "{}", String::from_utf8_lossy(&body));
                bytes = body.len();
                if round == 0 { &mut first } else { &mut again }.push(micros);
            }
        }
        let median = |times: &mut Vec<u64>| {
            times.sort_unstable();
            percentile(times, 50.0).map_or(f64::NAN, |value| value as f64 / 1e3)
        };
        let (first, again) = (median(&mut first), median(&mut again));
        crate::print(&format!(
            "| {length} | {} | {first:.2} | {again:.2} | {:.1} × |\n",
            bytes / 1024,
            first / again
        ));
    }
    Ok(())
}
