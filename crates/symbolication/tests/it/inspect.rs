//! What files are.

use loom_symbolication::{
    Format,
    bundle::{Bundle, EntryKind},
    debug_id_of_build_id, inspect, normalize_debug_id,
};
use serde_json::json;

use crate::support::{Workshop, bundle};

#[test]
fn a_program_and_its_split_debug_file_have_the_same_debug_id_and_other_features() {
    let shop = Workshop::new();
    shop.write("a.c", "int f(int x) { return x / 2; }\nint main(void) { return f(3); }\n");
    shop.run(
        "gcc",
        &[
            "-g",
            "-O1",
            "-Wl,--build-id=0xfcbf42ac84720102030405060708090a0b0c0d0e",
            "-o",
            "a",
            "a.c",
        ],
    );
    shop.run("objcopy", &["--only-keep-debug", "a", "a.debug"]);
    shop.run("objcopy", &["--strip-all", "--add-gnu-debuglink=a.debug", "a", "a.stripped"]);

    let whole = inspect(&shop.path("a")).unwrap().remove(0);
    let debug = inspect(&shop.path("a.debug")).unwrap().remove(0);
    let stripped = inspect(&shop.path("a.stripped")).unwrap().remove(0);

    assert_eq!(whole.format, Format::Elf);
    assert_eq!(whole.arch, "x86_64");
    assert_eq!(whole.debug_id.as_deref(), Some("ac42bffc-7284-0201-0304-05060708090a"));
    let code_id = "fcbf42ac84720102030405060708090a0b0c0d0e";
    assert_eq!(whole.code_id.as_deref(), Some(code_id));
    assert_eq!(debug_id_of_build_id(code_id), whole.debug_id);
    assert_eq!((&debug.debug_id, &stripped.debug_id), (&whole.debug_id, &whole.debug_id));
    assert!(whole.features.symtab && whole.features.debug && whole.features.unwind);
    assert_eq!((debug.kind, debug.features.debug, debug.features.unwind), ("dbg", true, false));
    assert!(!stripped.features.debug && stripped.features.unwind);
}

#[test]
fn debug_ids_are_read_in_all_forms() {
    let id = "dfb8e43a-f242-3d73-a453-aeb6a777ef75";
    for form in [
        id,
        "DFB8E43AF2423D73A453AEB6A777EF75",
        "DFB8E43AF2423D73A453AEB6A777EF750",
        " dfb8e43a-f242-3d73-a453-aeb6a777ef75-0",
    ] {
        assert_eq!(normalize_debug_id(form).as_deref(), Some(id), "{form}");
    }
    assert_eq!(
        normalize_debug_id("DFB8E43AF2423D73A453AEB6A777EF75a").as_deref(),
        Some("dfb8e43a-f242-3d73-a453-aeb6a777ef75-a")
    );
    assert_eq!(normalize_debug_id("00000000-0000-0000-0000-000000000000"), None);
    assert_eq!(normalize_debug_id("nothing"), None);
}

#[test]
fn a_bundle_of_scripts_tells_its_release_and_its_files() {
    let id = "6a1bb68b-5f3c-4d3a-a5a3-8d1f4d7a0b6c";
    let bytes = bundle(
        json!({"org": "o", "project": "p", "release": "web@1", "dist": "7", "debug_id": id}),
        &[
            (
                "files/_/_/app.min.js",
                json!({"type": "minified_source", "url": "~/app.min.js",
                    "headers": {"Debug-Id": id.to_uppercase(), "Sourcemap": "app.min.js.map"}}),
                b"x()",
            ),
            (
                "files/_/_/app.min.js.map",
                json!({"type": "source_map", "url": "~/app.min.js.map", "headers": {"debug-id": id}}),
                b"{}",
            ),
            ("files/_/_/new.bin", json!({"type": "of_tomorrow", "url": "~/new.bin"}), b"?"),
        ],
    );
    let mut bundle = Bundle::parse(&bytes).unwrap();
    assert_eq!(bundle.release.as_deref(), Some("web@1"));
    assert_eq!(bundle.dist.as_deref(), Some("7"));
    let script = bundle.entries[0].clone();
    assert_eq!(script.kind, EntryKind::MinifiedSource);
    assert_eq!(script.url.as_deref(), Some("~/app.min.js"));
    assert_eq!(script.debug_id.as_deref(), Some(id));
    assert_eq!(script.source_map.as_deref(), Some("app.min.js.map"));
    assert_eq!(bundle.entries[2].kind, EntryKind::Other);
    assert_eq!(bundle.read(&script.zip_path).unwrap(), b"x()");
    assert!(bundle.read("files/_/_/none.js").is_err());
    let mut out = Vec::new();
    assert_eq!(bundle.copy("files/_/_/app.min.js.map", &mut out).unwrap(), 2);

    let shop = Workshop::new();
    let info = inspect(&shop.write("b.zip", &bytes)).unwrap().remove(0);
    assert_eq!((info.format, info.debug_id.as_deref()), (Format::SourceBundle, Some(id)));
}

#[test]
fn a_mapping_is_known_by_the_uuid_of_its_content() {
    let shop = Workshop::new();
    let path = shop.write("mapping.txt", "com.example.Main -> a.a:\n    1:1:void run():3:3 -> a\n");
    let info = inspect(&path).unwrap().remove(0);
    assert_eq!((info.format, info.features.debug), (Format::ProGuard, true));
    assert_eq!(info.debug_id.unwrap().len(), 36);
}

#[test]
fn what_is_none_of_these_is_refused_in_words() {
    let shop = Workshop::new();
    for (content, words) in [
        (&b"hello"[..], "neither a debug file"),
        (b"", "empty"),
        (b"SYSB\x02\0\0\0rubbish", "not a ZIP"),
        (b"\x7fELF rubbish that is long enough to look like a header of something", ""),
    ] {
        let error = inspect(&shop.write("x", content)).unwrap_err();
        assert!(error.reason.contains(words), "{error}");
    }
}
