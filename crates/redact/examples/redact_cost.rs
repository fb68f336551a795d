//! What masking a log line costs: `cargo run --release -p loom-redact --example redact_cost`.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::{hint::black_box, time::Instant};

use loom_redact::Redactor;

const ROUNDS: u32 = 200_000;

fn main() {
    let known = (0..20_u64)
        .map(|at| format!("{:032x}", (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).into());
    let started = Instant::now();
    let redactor = Redactor::new(known);
    println!("{:>8.1} ms  to make one with 20 known values", started.elapsed().as_secs_f64() * 1e3);

    let clean = "2026-03-01T10:15:30.123456Z  INFO loom_server::layers: request finished method=GET \
        path=/api/threads/0192f3c4-7d1e-7c3a-9b2f-8a1d5e6f7a8b status=200 latency_ms=12 bytes=5312 \
        request_id=0192f3c4-7d1e-7c3a-9b2f-8a1d5e6f7a8c";
    let words = "2026-03-01T10:15:30.123456Z  INFO loom_llm_proxy::ledger: account closed provider=anthropic \
        key_id=17 prompt_tokens=1200 completion_tokens=311 state=done url=https://api.example.org/v1/messages \
        code=200 authorization ok";
    let token = format!("{clean} error=refused ghp_{}", "aB3dE5gH7j".repeat(4));
    let url = format!("{clean} url=postgres://loom:hunter2@db/loom");
    let known = format!("{clean} value={:032x}", 0x9e37_79b9_7f4a_7c15_u64);
    for (name, line) in [
        ("clean", clean),
        ("clean, with telling words", words),
        ("with a token", &token),
        ("with a URL's password", &url),
        ("with a known value", &known),
    ] {
        let mut best = f64::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            for _ in 0..ROUNDS / 5 {
                black_box(redactor.redact(black_box(line)));
            }
            best = best.min(started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS / 5));
        }
        println!("{best:>8.0} ns  a line of {} bytes, {name}", line.len());
    }
}
