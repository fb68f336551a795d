//! Formats of other systems, of small programs that the compiler at hand makes for them.
//!
//! `fixtures/shop.dwarf` is the one that the tests do not make, for the tool is not everywhere: `dsymutil -f`
//! of what `macho()` links, with `--remap-path-prefix=$PWD=/src`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use loom_symbolication::{
    Format, Frame, Language, Module, ModuleKind, ObjectInfo, Stack, Status, Wanted, inspect,
};

use crate::support::{Shelf, Workshop, crash_at, module, request, symbolicator};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Compiles `shop.rs` for a system that need not be installed: it uses no library at all.
fn object(shop: &Workshop, target: &str) -> String {
    let name = format!("{target}.o");
    let source = shop.write("shop.rs", std::fs::read(fixture("shop.rs")).unwrap());
    let args = [
        "--target",
        target,
        "--emit=obj",
        "--crate-type=lib",
        "-g",
        "-O",
        "-Cpanic=abort",
        "-o",
        &name,
        source.to_str().unwrap(),
    ];
    shop.run("rustc", &args);
    name
}

fn link(shop: &Workshop, flavor: &str, args: &[&str]) {
    let sysroot = shop.run("rustc", &["--print=sysroot"]);
    let host = shop.run("rustc", &["-vV"]);
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let linker = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/rust-lld");
    shop.run(linker, &[&["-flavor", flavor], args].concat());
}

fn macho(shop: &Workshop, arch: &str, target: &str) -> PathBuf {
    let object = object(shop, target);
    let out = format!("{arch}.dylib");
    let platform =
        ["-platform_version", "macos", "11.0", "11.0", "-dylib", "-undefined", "dynamic_lookup"];
    link(shop, "darwin", &[&["-arch", arch], &platform[..], &["-o", &out, &object]].concat());
    shop.path(&out)
}

/// All stacks that are found at any address: names and lines, outermost first.
async fn all(
    shop: &Workshop,
    module: Module,
    addresses: std::ops::Range<u64>,
) -> BTreeSet<Vec<(String, u32)>> {
    let shelf = Arc::new(Shelf::default());
    shelf.put(&PathBuf::from(module.code_file.clone().unwrap()));
    let base = module.address;
    let stacks = addresses.map(|address| crash_at(base + address)).collect();
    let answer = symbolicator(&shelf, shop).symbolicate(request(vec![module], stacks)).await;
    answer
        .stacks
        .iter()
        .map(|stack| {
            let frames = stack[0].frames.iter();
            frames
                .map(|f| (f.function.clone().unwrap_or_default(), f.lineno.unwrap_or(0)))
                .collect()
        })
        .collect()
}

fn has(all: &BTreeSet<Vec<(String, u32)>>, stack: &[(&str, u32)]) -> bool {
    let same = |found: &Vec<(String, u32)>| {
        found.len() == stack.len()
            && found.iter().zip(stack).all(|((name, line), (wanted, at))| {
                name.split('(').next().unwrap().rsplit("::").next() == Some(*wanted) && line == at
            })
    };
    all.iter().any(same)
}

fn only(path: &Path) -> ObjectInfo {
    let mut objects = inspect(path).unwrap();
    assert_eq!(objects.len(), 1);
    objects.remove(0)
}

#[tokio::test]
async fn a_dsym_of_mac_os() {
    let shop = Workshop::new();
    let path = fixture("shop.dwarf");
    let info = only(&path);
    assert_eq!((info.format, info.kind, info.arch.as_str()), (Format::MachO, "dbg", "x86_64"));
    assert!(info.features.debug);
    let found = all(&shop, module(&path, 0x1_0000_0000), 0x400..0x500).await;
    assert!(has(&found, &[("till", 26), ("price", 22)]), "{found:?}");
    assert!(has(&found, &[("start", 33)]), "{found:?}");
}

#[tokio::test]
async fn a_fat_file_is_read_for_the_architecture_that_crashed() {
    let shop = Workshop::new();
    let intel = macho(&shop, "x86_64", "x86_64-apple-darwin");
    let arm = macho(&shop, "arm64", "aarch64-apple-darwin");
    let (intel_bytes, arm_bytes) = (std::fs::read(&intel).unwrap(), std::fs::read(&arm).unwrap());
    let mut fat = vec![];
    let word = |fat: &mut Vec<u8>, word: u32| fat.extend(word.to_be_bytes());
    word(&mut fat, 0xcafe_babe);
    word(&mut fat, 2);
    let second = (0x4000 + intel_bytes.len()).next_multiple_of(0x4000);
    for (cpu, sub, at, bytes) in
        [(0x0100_0007, 3, 0x4000, &intel_bytes), (0x0100_000c, 0, second, &arm_bytes)]
    {
        word(&mut fat, cpu);
        word(&mut fat, sub);
        word(&mut fat, u32::try_from(at).unwrap());
        word(&mut fat, u32::try_from(bytes.len()).unwrap());
        word(&mut fat, 14);
    }
    fat.resize(0x4000, 0);
    fat.extend(&intel_bytes);
    fat.resize(second, 0);
    fat.extend(&arm_bytes);
    let path = shop.write("fat.dylib", &fat);
    let objects = inspect(&path).unwrap();
    let archs: Vec<&str> = objects.iter().map(|object| object.arch.as_str()).collect();
    assert_eq!(archs, ["x86_64", "arm64"]);
    for thin in [intel, arm] {
        let mut of_fat = module(&thin, 0x1_0000_0000);
        of_fat.code_file = Some(path.to_str().unwrap().to_owned());
        let from_fat = all(&shop, of_fat, 0..0x1000).await;
        let from_thin = all(&shop, module(&thin, 0x1_0000_0000), 0..0x1000).await;
        assert!(has(&from_fat, &[("till", 0)]), "{from_fat:?}");
        assert_eq!(from_fat, from_thin);
    }
}

/// A small file of each of these formats.
pub(crate) fn samples(shop: &Workshop) -> Vec<(&'static str, PathBuf)> {
    windows(shop);
    let ppdb = shop.write("shop-portable.pdb", portable_pdb());
    vec![
        ("mach-o", macho(shop, "arm64", "aarch64-apple-darwin")),
        ("dsym", fixture("shop.dwarf")),
        ("pe", shop.path("shop.dll")),
        ("pdb", shop.path("shop.pdb")),
        ("wasm", wasm(shop)),
        ("portable pdb", ppdb),
    ]
}

fn windows(shop: &Workshop) {
    let object = object(shop, "x86_64-pc-windows-msvc");
    let args = [
        "/dll",
        "/noentry",
        "/debug",
        "/force",
        "/nodefaultlib",
        "/export:start",
        "/out:shop.dll",
        "/pdb:shop.pdb",
        &object,
    ];
    link(shop, "link", &args);
}

#[tokio::test]
async fn a_pdb_and_the_module_it_belongs_to() {
    let shop = Workshop::new();
    windows(&shop);
    let (dll, pdb) = (only(&shop.path("shop.dll")), only(&shop.path("shop.pdb")));
    assert_eq!((dll.format, pdb.format), (Format::Pe, Format::Pdb));
    assert_eq!(dll.debug_id, pdb.debug_id, "with the age");
    assert!(dll.code_id.is_some());
    assert!(pdb.features.debug);
    let found = all(&shop, module(&shop.path("shop.pdb"), 0x1_8000_0000), 0x1000..0x1080).await;
    assert!(has(&found, &[("till", 26), ("price", 22)]), "{found:?}");
    assert!(has(&found, &[("start", 33)]), "{found:?}");
}

fn wasm(shop: &Workshop) -> PathBuf {
    let object = object(shop, "wasm32-unknown-unknown");
    let args = [
        "--no-entry",
        "--export=start",
        "--allow-undefined",
        "--build-id=uuid",
        "-o",
        "shop.wasm",
        &object,
    ];
    link(shop, "wasm", &args);
    shop.path("shop.wasm")
}

#[tokio::test]
async fn web_assembly_by_offsets_into_the_file() {
    let shop = Workshop::new();
    let path = wasm(&shop);
    let info = only(&path);
    assert_eq!((info.format, info.arch.as_str()), (Format::Wasm, "wasm32"));
    let length = std::fs::metadata(&path).unwrap().len();
    let found = all(&shop, module(&path, 0), 0..length).await;
    assert!(has(&found, &[("till", 26), ("price", 22)]), "{found:?}");
    assert!(has(&found, &[("start", 33)]), "{found:?}");
}

#[tokio::test]
async fn breakpad_symbols() {
    let shop = Workshop::new();
    let path = shop.write(
        "crash.sym",
        "MODULE Linux x86_64 6A1BB68B5F3C4D3AA5A38D1F4D7A0B6C0 crash\n\
         INFO CODE_ID 8BB61B6A3C5F3A4DA5A38D1F4D7A0B6C\n\
         FILE 0 /src/a.cc\n\
         INLINE_ORIGIN 0 small()\n\
         FUNC 1000 20 0 main\n\
         INLINE 0 5 0 0 1004 8\n\
         1000 4 1 0\n\
         1004 8 9 0\n\
         100c 14 6 0\n\
         PUBLIC 2000 0 _ZN4shop4tillEi\n",
    );
    let info = only(&path);
    assert_eq!(info.format, Format::Breakpad);
    assert_eq!(info.debug_id.as_deref(), Some("6a1bb68b-5f3c-4d3a-a5a3-8d1f4d7a0b6c"));
    assert_eq!(info.name.as_deref(), Some("crash"));
    let found = all(&shop, module(&path, 0x40_0000), 0x1000..0x2001).await;
    assert!(has(&found, &[("main", 5), ("small", 9)]), "{found:?}");
    assert!(has(&found, &[("main", 6)]), "{found:?}");
    assert!(found.contains(&vec![("shop::till".to_owned(), 0)]), "{found:?}");
}

/// A portable PDB with one document and the lines of one method.
fn portable_pdb() -> Vec<u8> {
    let guid = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0xaa, 0xbb, 0xcc, 0xdd];
    let mut pdb = guid.to_vec();
    pdb.extend(0_u32.to_le_bytes()); // no entry point
    pdb.extend((1_u64 << 0x06).to_le_bytes()); // of the other tables, MethodDef is referred to,
    pdb.extend(3_u32.to_le_bytes()); // which has three rows
    // Blobs: nothing; the parts of a name; the name; lines.
    let mut blob = vec![0];
    let mut add = |bytes: &[u8]| {
        let at = u16::try_from(blob.len()).unwrap();
        blob.push(u8::try_from(bytes.len()).unwrap());
        blob.extend(bytes);
        at
    };
    let src = add(b"src");
    let file = add(b"Shop.cs");
    let name = add(&[b'/', 0, u8::try_from(src).unwrap(), u8::try_from(file).unwrap()]);
    // Signature 0; IL 0: line 10, column 5, one column; IL +6: two lines further.
    let lines = add(&[0, 0, 0, 1, 10, 5, 6, 0, 1, 4, 0]);
    while blob.len() % 4 != 0 {
        blob.push(0);
    }
    let mut tables = vec![0, 0, 0, 0, 2, 0, 0, 1];
    tables.extend(((1_u64 << 0x30) | (1_u64 << 0x31)).to_le_bytes());
    tables.extend(0_u64.to_le_bytes());
    tables.extend(1_u32.to_le_bytes());
    tables.extend(3_u32.to_le_bytes());
    for cell in [name, 0, 0, 1] {
        tables.extend(cell.to_le_bytes()); // Document: name, hash algorithm, hash, language
    }
    for cell in [0, 0, 1, lines, 0, 0] {
        tables.extend(cell.to_le_bytes()); // MethodDebugInformation: document, lines
    }
    while tables.len() % 4 != 0 {
        tables.push(0);
    }
    let guids = [7; 16].to_vec();
    let streams: [(&str, Vec<u8>); 5] = [
        ("#Pdb", pdb),
        ("#~", tables),
        ("#Strings", vec![0; 4]),
        ("#GUID", guids),
        ("#Blob", blob),
    ];
    let version = b"PDB v1.0\0\0\0\0";
    let mut out = b"BSJB\x01\0\x01\0\0\0\0\0".to_vec();
    out.extend(u32::try_from(version.len()).unwrap().to_le_bytes());
    out.extend(version);
    out.extend([0, 0]);
    out.extend(u16::try_from(streams.len()).unwrap().to_le_bytes());
    let padded = |name: &str| (name.len() + 1).next_multiple_of(4);
    let mut at = out.len() + streams.iter().map(|(name, _)| 8 + padded(name)).sum::<usize>();
    for (name, content) in &streams {
        out.extend(u32::try_from(at).unwrap().to_le_bytes());
        out.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        let mut name_bytes = name.as_bytes().to_vec();
        name_bytes.resize(padded(name), 0);
        out.extend(name_bytes);
        at += content.len();
    }
    for (_, content) in streams {
        out.extend(content);
    }
    out
}

#[tokio::test]
async fn a_portable_pdb_by_method_and_offset() {
    let shop = Workshop::new();
    let path = shop.write("shop.pdb", portable_pdb());
    let info = only(&path);
    assert_eq!((info.format, info.features.debug), (Format::PortablePdb, true));
    let shelf = Arc::new(Shelf::default());
    shelf.put_as(
        Wanted::Debug { debug_id: info.debug_id.clone(), code_id: None, symbols: true },
        &path,
        None,
    );
    let dotnet = Module { kind: ModuleKind::DotNet, debug_id: info.debug_id, ..Module::default() };
    let frame = |method: u64, offset| Frame {
        language: Language::DotNet,
        function: Some("Till".to_owned()),
        function_id: Some(0x0600_0000 + method),
        instruction_addr: Some(offset),
        addr_mode: Some("rel:0".to_owned()),
        ..Frame::default()
    };
    let frames = vec![frame(3, 0), frame(2, 7), frame(2, 2)];
    let stacks = vec![Stack { frames, ..Stack::default() }];
    let answer = symbolicator(&shelf, &shop).symbolicate(request(vec![dotnet], stacks)).await;
    let outcomes = &answer.stacks[0];
    assert_eq!(outcomes[0].status, Some(Status::MissingSymbol { file: "shop.pdb".to_owned() }));
    let lines: Vec<_> = outcomes[1..].iter().map(|outcome| outcome.frames[0].lineno).collect();
    assert_eq!(lines, [Some(12), Some(10)]);
    assert_eq!(outcomes[1].frames[0].abs_path.as_deref(), Some("/src/Shop.cs"));
    assert_eq!(outcomes[1].frames[0].filename.as_deref(), Some("Shop.cs"));
}
