//! Symbolication: what it costs to prepare a program's debug information, and a frame when that is done.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use loom_core::{
    id::{ArtifactId, ProjectId},
    port::BoxFuture,
};
use loom_symbolication::{
    Config, File, Files, Frame, Module, Request, Stack, Status, Symbolicator, Wanted,
};
use symbolic_debuginfo::Object;
use uuid::Uuid;

use crate::{print, process::usage, stats::percentile};

const GOAL_FRAME_US: f64 = 20.0;
const GOAL_CACHE_CPU_S: f64 = 2.0;
const GOAL_MIB: f64 = 50.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A program with debug information (ELF, Mach-O, PE, WASM)
    #[arg(long)]
    file: PathBuf,
    /// Calls of a stack
    #[arg(long, default_value_t = 50)]
    frames: usize,
    /// Stacks that are looked up, one after the other
    #[arg(long, default_value_t = 2000)]
    stacks: usize,
}

/// The one file that there is.
struct One(File);

impl Files for One {
    fn find<'a>(
        &'a self,
        _: ProjectId,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, loom_core::Result<Option<File>>> {
        let found = matches!(wanted, Wanted::Debug { .. }).then(|| self.0.clone());
        Box::pin(async move { Ok(found) })
    }
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let cache = std::env::temp_dir().join(format!("loom-bench-symbols-{}", std::process::id()));
    let result = measure(options, &cache).await;
    let _ = std::fs::remove_dir_all(&cache);
    result
}

async fn measure(options: &Options, cache: &Path) -> Result<()> {
    ensure!(options.frames > 0 && options.stacks > 0, "nothing to measure");
    let content = std::fs::read(&options.file).context("the file cannot be read")?;
    let mib = content.len() as f64 / f64::from(1 << 20);
    let (debug_id, addresses) = addresses(&content)?;
    drop(content);
    let file = File {
        id: ArtifactId(Uuid::nil()),
        digest: [1; 32],
        name: "program".to_owned(),
        path: options.file.clone(),
        source_map: None,
    };
    let config = Config { cache_dir: cache.to_owned(), cache_bytes: 1 << 40, parallel: 4 };
    let symbols = Symbolicator::new(Arc::new(One(file)), config);
    let request = |first: usize, count: usize| {
        let frame = |n: usize| Frame {
            instruction_addr: addresses.get((first + n * 7919) % addresses.len()).copied(),
            ..Frame::default()
        };
        let module = Module { debug_id: Some(debug_id.clone()), ..Module::default() };
        let stack = Stack { frames: (0..count).map(frame).collect(), ..Stack::default() };
        Request {
            project: ProjectId(Uuid::nil()),
            release: None,
            dist: None,
            modules: vec![module],
            stacks: vec![stack],
            classes: Vec::new(),
        }
    };

    let (before, began) = (usage(std::process::id()).cpu, Instant::now());
    symbols.symbolicate(request(0, 1)).await;
    let (cpu, wall) = (usage(std::process::id()).cpu - before, began.elapsed());
    let cpu_of_50 = cpu.as_secs_f64() / mib * GOAL_MIB;
    print(&format!(
        "first frame of a file of {mib:.0} MiB: {:.2} s of CPU, {:.2} s in all; {cpu_of_50:.2} s of CPU for 50 MiB (goal {GOAL_CACHE_CPU_S})\n",
        cpu.as_secs_f64(),
        wall.as_secs_f64()
    ));

    let (mut found, mut all) = (0, 0);
    for count in [1, options.frames] {
        let mut nanos = Vec::with_capacity(options.stacks);
        let before = usage(std::process::id()).cpu;
        for n in 0..options.stacks {
            let request = request(n * count, count);
            let began = Instant::now();
            let answer = symbols.symbolicate(request).await;
            nanos.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            for outcome in answer.stacks.iter().flatten() {
                all += 1;
                found += usize::from(matches!(outcome.status, Some(Status::Symbolicated { .. })));
            }
        }
        let cpu = usage(std::process::id()).cpu - before;
        nanos.sort_unstable();
        let each = |percent| percentile(&nanos, percent).unwrap_or(0) as f64 / 1e3 / count as f64;
        print(&format!(
            "warm, stacks of {count}: {:.1} µs a frame (p50), {:.1} (p99), {:.1} of CPU (goal {GOAL_FRAME_US})\n",
            each(50.0),
            each(99.0),
            cpu.as_secs_f64() * 1e6 / (options.stacks * count) as f64
        ));
    }
    print(&format!("{:.1} % of {all} frames were found\n", found as f64 / all as f64 * 100.0));
    Ok(())
}

/// The debug id of a program, and places in its functions.
fn addresses(content: &[u8]) -> Result<(String, Vec<u64>)> {
    let object = Object::parse(content).context("no debug file")?;
    let addresses: Vec<u64> = object
        .symbols()
        .filter(|symbol| symbol.size > 16)
        .map(|symbol| symbol.address + symbol.size / 2)
        .collect();
    ensure!(!addresses.is_empty(), "the file has no functions");
    Ok((object.debug_id().to_string(), addresses))
}
