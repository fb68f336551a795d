//! Files that were made to hurt: no panic comes through, and what is read is bounded.

use std::{io::Write, path::Path, sync::Arc};

use loom_symbolication::{
    Frame, Language, Module, ModuleKind, Request, Stack, Wanted, bundle::Bundle, inspect,
};
use proptest::prelude::*;

use crate::support::{Shelf, Workshop, bundle, crash_at, project, symbolicator, walk};

const ID: &str = "6a1bb68b-5f3c-4d3a-a5a3-8d1f4d7a0b6c";

/// Changes to make: where (of 65536 parts), what; and where it is cut.
type Changes = (Vec<(u16, u8)>, Option<u16>);

fn changes() -> impl Strategy<Value = Changes> {
    let cut = prop_oneof![4 => Just(None), 1 => any::<u16>().prop_map(Some)];
    (prop::collection::vec((any::<u16>(), any::<u8>()), 0..24), cut)
}

fn apply(seed: &[u8], (changes, cut): &Changes) -> Vec<u8> {
    let at = |place: u16| usize::from(place) * seed.len() / 65_536;
    let mut bytes = seed.to_vec();
    for (place, byte) in changes {
        // The headers are at the beginning, and take half of the hits.
        let place =
            if place % 2 == 0 { at(*place) } else { usize::from(*place) % seed.len().min(512) };
        bytes[place] = *byte;
    }
    bytes.truncate(cut.map_or(seed.len(), at));
    bytes
}

/// One seed for each format that is read.
fn seeds(shop: &Workshop) -> Vec<(&'static str, Vec<u8>)> {
    shop.write("a.c", "int f(int x) { return x / 2; }\nint main(void) { return f(3); }\n");
    shop.run("gcc", &["-g", "-O1", "-Wl,--build-id", "-o", "a", "a.c"]);
    shop.run("objcopy", &["--only-keep-debug", "--compress-debug-sections=zlib", "a", "z"]);
    let read = |name: &str| std::fs::read(shop.path(name)).unwrap();
    let breakpad = "MODULE Linux x86_64 6A1BB68B5F3C4D3AA5A38D1F4D7A0B6C0 crash\nFILE 0 a.c\n\
        INLINE_ORIGIN 0 small\nFUNC 1000 20 0 main\nINLINE 0 5 0 0 1004 8\n1000 4 1 0\n1004 8 9 0\n\
        100c 14 5 0\nPUBLIC 2000 0 other\nSTACK CFI INIT 1000 20 .cfa: $rsp 8 + .ra: .cfa -8 + ^\n";
    let sources = bundle(
        serde_json::json!({"debug_id": ID}),
        &[("files/a.c", serde_json::json!({"type": "source", "path": "/src/a.c"}), b"int f;")],
    );
    let samples = crate::formats::samples(shop);
    let samples = samples.iter().map(|(name, path)| (*name, std::fs::read(path).unwrap()));
    let mut seeds: Vec<_> = samples.collect();
    #[cfg(target_arch = "x86_64")]
    seeds.push(("minidump", crate::minidump::crashed(shop).1));
    seeds.extend([
        ("elf", read("a")),
        ("compressed", read("z")),
        ("breakpad", breakpad.into()),
        ("bundle", sources),
        ("mapping", b"com.example.Main -> a.a:\n    1:1:void run():3:3 -> a\n    2:9:int b(int) -> b\n".to_vec()),
        ("map", br#"{"version":3,"sources":["a.ts"],"sourcesContent":["one\ntwo\n"],"names":["f"],"mappings":"AAAAA,IACA;;IACAA"}"#.to_vec()),
        ("index", br#"{"version":3,"sections":[{"offset":{"line":0,"column":0},"map":{"version":3,"sources":["a"],"names":[],"mappings":"AAAA"}}]}"#.to_vec()),
    ]);
    seeds
}

async fn use_it(shop: &Workshop, path: &Path) {
    let shelf = Arc::new(Shelf::default());
    let id = || Some(ID.to_owned());
    shelf.put_as(Wanted::Debug { debug_id: id(), code_id: None, symbols: true }, path, None);
    shelf.put_as(Wanted::SourceBundle { debug_id: ID.to_owned() }, path, None);
    shelf.put_as(Wanted::Mapping { uuid: ID.to_owned() }, path, None);
    for source_map in [true, false] {
        shelf.put_as(Wanted::ScriptById { debug_id: ID.to_owned(), source_map }, path, None);
    }
    let module = |kind| Module {
        kind,
        debug_id: id(),
        code_file: Some("app:///a.js".to_owned()),
        ..Module::default()
    };
    let frame = |language| Frame {
        language,
        module: Some("a.a".to_owned()),
        function: Some("a".to_owned()),
        abs_path: Some("app:///a.js".to_owned()),
        lineno: Some(1),
        colno: Some(3),
        ..Frame::default()
    };
    let mut dotnet = frame(Language::DotNet);
    dotnet.function = None;
    dotnet.function_id = Some(0x0600_0001);
    dotnet.instruction_addr = Some(2);
    dotnet.addr_mode = Some("rel:3".to_owned());
    let request = Request {
        project: project(),
        release: None,
        dist: None,
        modules: vec![
            module(ModuleKind::Native),
            module(ModuleKind::Script),
            module(ModuleKind::Mapping),
            module(ModuleKind::DotNet),
        ],
        stacks: vec![
            crash_at(0x1139),
            crash_at(0x1005),
            Stack {
                frames: vec![frame(Language::JavaScript), frame(Language::Java), dotnet],
                ..Stack::default()
            },
        ],
        classes: vec!["a.a".to_owned()],
    };
    let symbols = symbolicator(&shelf, shop);
    // Also as a minidump whose modules are this very file.
    let _ = walk(&symbols, std::fs::read(path).unwrap()).await;
    let answer = symbols.symbolicate(request).await;
    assert_eq!(answer.stacks.len(), 3, "the parts of an answer are those of its request");
    assert!(answer.stacks[0][0].status.is_some());
}

#[test]
fn changed_files_of_every_format_do_no_harm() {
    // Panics that are caught are not to fill the output.
    std::panic::set_hook(Box::new(|_| {}));
    let shop = Workshop::new();
    let seeds = seeds(&shop);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 400,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let strategy = (0..seeds.len(), changes());
    let result = runner.run(&strategy, |(seed, changes)| {
        let bytes = apply(&seeds[seed].1, &changes);
        let path = shop.write("changed", &bytes);
        let _ = inspect(&path);
        if let Ok(mut bundle) = Bundle::parse(&bytes) {
            for entry in bundle.entries.clone() {
                let _ = bundle.read(&entry.zip_path);
            }
        }
        runtime.block_on(use_it(&shop, &path));
        Ok(())
    });
    let _ = std::panic::take_hook();
    result.unwrap();
    // A process of its own: what all of them together ever took.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 768 << 10, "{} MiB for files of a few KiB", peak >> 10);
}

#[test]
fn unwind_rules_and_dumps_that_were_changed_do_no_harm() {
    std::panic::set_hook(Box::new(|_| {}));
    let shop = Workshop::new();
    let seeds: Vec<_> = seeds(&shop)
        .into_iter()
        .filter(|(name, _)| ["elf", "pe", "minidump"].contains(name))
        .collect();
    let Some((_, dump)) = seeds.iter().find(|(name, _)| *name == "minidump") else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        max_shrink_iters: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    // The program that crashed, changed, under the id of the one that is asked for; and the dump, changed.
    let program = std::fs::read(shop.path("crash")).unwrap();
    let id = inspect(&shop.path("crash")).unwrap().remove(0).debug_id;
    let result = runner.run(&(any::<bool>(), changes()), |(is_dump, changes)| {
        let (dump, program) = match is_dump {
            true => (apply(dump, &changes), program.clone()),
            false => (dump.clone(), apply(&program, &changes)),
        };
        let path = shop.write("changed", &program);
        let shelf = Arc::new(Shelf::default());
        let wanted = Wanted::Debug { debug_id: id.clone(), code_id: None, symbols: false };
        shelf.put_as(wanted, &path, None);
        let walked = runtime.block_on(walk(&symbolicator(&shelf, &shop), dump));
        if let Ok(walked) = walked {
            let frames: usize = walked.threads.iter().map(|thread| thread.frames.len()).sum();
            assert!(frames <= 12_500);
        }
        Ok(())
    });
    let _ = std::panic::take_hook();
    result.unwrap();
}

#[test]
fn an_entry_that_unpacks_to_too_much_is_refused() {
    // Not compressed, for speed: what counts is what comes out.
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("manifest.json", stored).unwrap();
    zip.write_all(br#"{"files":{"files/big.js":{"type":"source","url":"~/big.js"}}}"#).unwrap();
    zip.start_file("files/big.js", stored).unwrap();
    let megabyte = vec![0_u8; 1 << 20];
    for _ in 0..257 {
        zip.write_all(&megabyte).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    let error = Bundle::parse(&bytes).unwrap().read("files/big.js").unwrap_err();
    assert_eq!(error.reason, "files/big.js: larger than 256 MiB");
    let mut out = std::io::sink();
    assert!(Bundle::parse(&bytes).unwrap().copy("files/big.js", &mut out).is_err());
}

#[test]
fn sections_that_claim_too_much_together_are_not_unpacked() {
    let shop = Workshop::new();
    // Enough of it that several sections are worth it.
    shop.write("a.c", include_str!("../fixtures/crash.c"));
    shop.run("gcc", &["-g", "-O2", "-gz=zlib", "-Wl,--build-id", "-o", "a", "a.c"]);
    let mut bytes = std::fs::read(shop.path("a")).unwrap();
    assert!(inspect(&shop.path("a")).unwrap()[0].features.debug);
    let mut claimed = 0;
    for at in 0..bytes.len() - 24 {
        if bytes[at..at + 8] == [1, 0, 0, 0, 0, 0, 0, 0] && bytes[at + 24] == 0x78 {
            // Each no more than one may be.
            bytes[at + 8..at + 16].copy_from_slice(&(15_u64 << 20).to_le_bytes());
            claimed += 1;
        }
    }
    assert!(claimed >= 5, "{claimed}");
    let refused = inspect(&shop.write("many", &bytes)).unwrap_err();
    assert!(refused.reason.starts_with("the compressed sections claim"), "{refused}");
}

#[test]
fn a_compressed_section_that_claims_too_much_is_not_unpacked() {
    let shop = Workshop::new();
    shop.write("a.c", "int main(void) { return 0; }\n");
    shop.run("gcc", &["-g", "-gz=zlib", "-Wl,--build-id", "-o", "a", "a.c"]);
    let mut bytes = std::fs::read(shop.path("a")).unwrap();
    // Elf64_Chdr: type 1, reserved, size; found by what it says of itself.
    let mut claimed = 0;
    for at in 0..bytes.len() - 24 {
        let is_header = bytes[at..at + 8] == [1, 0, 0, 0, 0, 0, 0, 0] && bytes[at + 24] == 0x78;
        if is_header {
            bytes[at + 8..at + 16].copy_from_slice(&(1_u64 << 45).to_le_bytes());
            claimed += 1;
        }
    }
    assert!(claimed > 0);
    let path = shop.write("bomb", &bytes);
    let _ = inspect(&path);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(use_it(&shop, &path));
}
