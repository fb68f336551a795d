//! How long searches take: `cargo run --release -p loom-docs --example search_times`.

#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::time::Instant;

use loom_docs::Docs;

fn main() {
    let started = Instant::now();
    let docs = Docs::new();
    println!("start: {:?}", started.elapsed());
    let worst = "organizatoin mastr autentication postgresq retrieval ".repeat(4);
    for q in [
        "keys",
        "rotate master key",
        "\"master key\"",
        "LOOM_SERVER_ANTHROPIC",
        "organizatoin",
        &worst,
    ] {
        let mut times: Vec<_> = (0..5000)
            .map(|_| {
                let started = Instant::now();
                std::hint::black_box(docs.search(q, None, 50));
                started.elapsed()
            })
            .collect();
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        println!("{:?} p50, {:?} p99: {}", at(50), at(99), loom_core::text::cut(q, 40));
    }
}
