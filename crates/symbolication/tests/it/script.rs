//! Bundled and minified scripts, against what Node's own support for source maps says.

use std::{path::PathBuf, sync::Arc};

use loom_symbolication::{
    Found, Frame, Language, Module, ModuleKind, Request, Response, Stack, Status, Wanted,
};

use crate::support::{Shelf, Workshop, project, symbolicator};

const CART: &str = r#"
export class ShoppingCart {
    private prices: number[] = [];
    addToCart(price: number): this {
        this.prices.push(price);
        return this;
    }
    checkoutTotal(limit: number): number {
        return computeTotal(this.prices, limit);
    }
}
function computeTotal(prices: number[], limit: number): number {
    let total = 0;
    for (const price of prices) total += price;
    return assertBelow(total, limit);
}
const assertBelow = (total: number, limit: number): number => {
    if (total > limit) {
        throw new RangeError(`too much: ${total}`);
    }
    return total;
};
"#;

const MAIN: &str = r#"
import { ShoppingCart } from "./cart";

interface Frame { function: string | null; file: string; line: number; column: number }

function purchaseEverything(limit: number): number {
    const cart = new ShoppingCart();
    cart.addToCart(3).addToCart(4);
    return cart.checkoutTotal(limit);
}

function reportFault(error: unknown): void {
    process.stdout.write(String((error as Error).stack));
}

try {
    purchaseEverything(5);
} catch (error) {
    reportFault(error);
}
"#;

/// A frame as V8 writes it: name, file, line, column.
type Written = (Option<String>, String, u32, u32);

fn parse_stack(stack: &str) -> Vec<Written> {
    let lines = stack.lines().filter_map(|line| line.trim().strip_prefix("at "));
    lines
        .filter_map(|line| {
            let (name, place) = match line.strip_suffix(')').and_then(|line| line.split_once(" ("))
            {
                Some((name, place)) => (Some(name.to_owned()), place),
                None => (None, line),
            };
            let mut parts = place.rsplitn(3, ':');
            let column = parts.next()?.parse().ok()?;
            let line = parts.next()?.parse().ok()?;
            let file = parts.next()?;
            (!file.starts_with("node:")).then(|| (name, file.to_owned(), line, column))
        })
        .collect()
}

fn node() -> PathBuf {
    let given = std::env::var_os("LOOM_TEST_NODE_SDKS").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"),
            PathBuf::from,
        );
        target.join("sdk-node")
    });
    assert!(
        folder.join("node_modules/esbuild").is_dir(),
        "run .ci/setup sdk: {}",
        folder.display()
    );
    folder
}

fn build(shop: &Workshop, options: &[&str]) {
    shop.write("src/cart.ts", CART);
    shop.write("src/main.ts", MAIN);
    let mut args =
        vec!["src/main.ts", "--bundle", "--platform=node", "--sourcemap", "--outfile=dist/app.js"];
    args.extend(options);
    shop.run(node().join("node_modules/.bin/esbuild"), &args);
}

/// The stack of a run, oldest first, as SDKs send it.
fn run(shop: &Workshop, url: &str) -> Vec<Frame> {
    let written = parse_stack(&shop.run(node().join("node"), &["dist/app.js"]));
    assert!(written.len() >= 4, "{written:?}");
    written
        .into_iter()
        .rev()
        .map(|(function, _, line, column)| frame(function, url, line, column))
        .collect()
}

fn frame(function: Option<String>, url: &str, line: u32, column: u32) -> Frame {
    Frame {
        language: Language::JavaScript,
        function,
        abs_path: Some(url.to_owned()),
        lineno: Some(line),
        colno: Some(column),
        ..Frame::default()
    }
}

fn request(release: Option<&str>, modules: Vec<Module>, frames: Vec<Frame>) -> Request {
    Request {
        project: project(),
        release: release.map(str::to_owned),
        dist: None,
        modules,
        stacks: vec![Stack { frames, ..Stack::default() }],
        classes: Vec::new(),
    }
}

fn found(response: &Response) -> Vec<&Found> {
    response.stacks[0]
        .iter()
        .map(|outcome| {
            assert!(matches!(outcome.status, Some(Status::Symbolicated { .. })), "{outcome:?}");
            &outcome.frames[0]
        })
        .collect()
}

fn by_url(url: &str, source_map: bool) -> Wanted {
    Wanted::ScriptByUrl {
        release: "shop@1".to_owned(),
        dist: None,
        url: url.to_owned(),
        source_map,
    }
}

/// What Node says with its own support, oldest first.
fn oracle(shop: &Workshop) -> Vec<Written> {
    let mut frames =
        parse_stack(&shop.run(node().join("node"), &["--enable-source-maps", "dist/app.js"]));
    frames.reverse();
    frames
}

fn agrees(shop: &Workshop, response: &Response, names: bool) {
    let expected = oracle(shop);
    let found = found(response);
    assert_eq!(found.len(), expected.len());
    for (found, (name, file, line, column)) in found.iter().zip(&expected) {
        assert_eq!(
            (found.abs_path.as_deref(), found.lineno, found.colno),
            (Some(file.as_str()), Some(*line), Some(*column)),
            "{found:?}"
        );
        let source = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = source.lines().collect();
        let at = *line as usize - 1;
        let context = found.context.as_ref().unwrap();
        assert_eq!(context.line, lines[at]);
        assert_eq!(context.pre, lines[at.saturating_sub(5)..at]);
        assert_eq!(context.post, lines[at + 1..(at + 6).min(lines.len())]);
        let name = name.as_deref().filter(|name| names && !name.starts_with("Object."));
        if let Some(name) = name {
            let last = |name: &str| name.rsplit(['.', ' ']).next().unwrap().to_owned();
            assert_eq!(last(found.function.as_deref().unwrap_or("")), last(name), "{found:?}");
        }
    }
}

#[tokio::test]
async fn a_minified_bundle_by_debug_id_is_where_node_says() {
    let shop = Workshop::new();
    build(&shop, &["--minify"]);
    let script = shop.path("dist/app.js");
    let url = script.to_str().unwrap();
    let debug_id = "6a1bb68b-5f3c-4d3a-a5a3-8d1f4d7a0b6c".to_owned();
    let shelf = Arc::new(Shelf::default());
    let wanted = |source_map| Wanted::ScriptById { debug_id: debug_id.clone(), source_map };
    shelf.put_as(wanted(true), &shop.path("dist/app.js.map"), None);
    shelf.put_as(wanted(false), &script, None);
    let image = Module {
        kind: ModuleKind::Script,
        debug_id: Some(debug_id.clone()),
        code_file: Some(url.to_owned()),
        ..Module::default()
    };
    let frames = run(&shop, url);
    let answer = symbolicator(&shelf, &shop).symbolicate(request(None, vec![image], frames)).await;
    agrees(&shop, &answer, true);
    let names: Vec<_> =
        found(&answer).iter().map(|f| f.function.clone().unwrap_or_default()).collect();
    let named = |name: &str| names.iter().any(|found| found.rsplit('.').next() == Some(name));
    for name in ["purchaseEverything", "checkoutTotal", "computeTotal", "assertBelow"] {
        assert!(named(name), "{name} in {names:?}");
    }
    let newest = *found(&answer).last().unwrap();
    assert_eq!(newest.filename.as_deref(), Some("src/cart.ts"));
    assert!(!newest.foreign);
}

#[tokio::test]
async fn a_bundle_that_is_not_minified_keeps_the_names_it_has() {
    let shop = Workshop::new();
    build(&shop, &[]);
    let script = shop.path("dist/app.js");
    let url = script.to_str().unwrap();
    let shelf = Arc::new(Shelf::default());
    shelf.put_as(by_url(url, false), &script, None);
    shelf.put_as(by_url(&format!("{url}.map"), true), &shop.path("dist/app.js.map"), None);
    let frames = run(&shop, url);
    let answer =
        symbolicator(&shelf, &shop).symbolicate(request(Some("shop@1"), Vec::new(), frames)).await;
    agrees(&shop, &answer, true);
}

#[tokio::test]
async fn by_release_the_map_is_found_by_header_comment_habit_or_within_the_script() {
    let shop = Workshop::new();
    let url = "https://shop.example/static/app.js?v=3";
    let bare = "https://shop.example/static/app.js";
    for how in ["header", "comment", "habit", "inline"] {
        let options: &[&str] = match how {
            "comment" => &["--minify"],
            "inline" => &["--minify", "--sourcemap=inline"],
            _ => &["--minify", "--sourcemap=external"],
        };
        build(&shop, options);
        let (script, map) = (shop.path("dist/app.js"), shop.path("dist/app.js.map"));
        let shelf = Arc::new(Shelf::default());
        let beside = format!("{bare}.map");
        match how {
            "header" => {
                shelf.put_as(by_url(url, false), &script, Some("../maps/x.map"));
                shelf.put_as(by_url("https://shop.example/maps/x.map", true), &map, None);
            }
            "comment" => {
                shelf.put_as(by_url(url, false), &script, None);
                shelf.put_as(by_url(&beside, true), &map, None);
            }
            "habit" => shelf.put_as(by_url(&beside, true), &map, None),
            _ => shelf.put_as(by_url(url, false), &script, None),
        }
        let written = parse_stack(&shop.run(node().join("node"), &["dist/app.js"]));
        let (name, _, line, column) = written[0].clone();
        let frames = vec![frame(name, url, line, column)];
        let answer = symbolicator(&shelf, &shop)
            .symbolicate(request(Some("shop@1"), Vec::new(), frames))
            .await;
        let found = found(&answer)[0];
        assert_eq!(found.lineno, Some(19), "{how}");
        assert_eq!(found.filename.as_deref(), Some("src/cart.ts"), "{how}");
        assert_eq!(found.abs_path.as_deref(), Some("https://shop.example/src/cart.ts"), "{how}");
    }
}

#[tokio::test]
async fn without_a_map_the_frame_says_which_is_wanted() {
    let shop = Workshop::new();
    let shelf = Arc::new(Shelf::default());
    let url = "https://shop.example/app.js";
    let image = Module {
        kind: ModuleKind::Script,
        debug_id: Some("6a1bb68b-5f3c-4d3a-a5a3-8d1f4d7a0b6c".to_owned()),
        code_file: Some("https://shop.example/other.js".to_owned()),
        ..Module::default()
    };
    let mut read = frame(None, "app:///server.js", 3, 4);
    read.has_context = true;
    let frames = vec![
        frame(None, url, 1, 10),
        frame(None, "https://shop.example/other.js", 1, 10),
        frame(None, "node:internal/modules", 1, 10),
        read,
    ];
    let answer =
        symbolicator(&shelf, &shop).symbolicate(request(Some("shop@1"), vec![image], frames)).await;
    let status = |place: usize| answer.stacks[0][place].status.clone();
    assert!(
        matches!(status(0), Some(Status::MissingFile { wanted }) if wanted.contains(url) && wanted.contains("shop@1"))
    );
    assert!(
        matches!(status(1), Some(Status::MissingFile { wanted }) if wanted.contains("6a1bb68b"))
    );
    assert_eq!((status(2), status(3)), (None, None));
    assert!(answer.missing.contains(&by_url(url, false)));
    let by_id = Wanted::ScriptById {
        debug_id: "6a1bb68b-5f3c-4d3a-a5a3-8d1f4d7a0b6c".to_owned(),
        source_map: true,
    };
    assert!(answer.missing.contains(&by_id));
    assert!(!format!("{:?}", answer.missing).contains("server.js"));
}

#[tokio::test]
async fn a_map_of_sections_and_positions_it_does_not_know() {
    let shop = Workshop::new();
    let map = |source: &str| {
        let mut builder = sourcemap::SourceMapBuilder::new(None);
        let id = builder.add_source(source);
        builder.set_source_contents(id, Some("first\nsecond\nthird"));
        builder.add(0, 4, 1, 0, Some(source), Some("original"), false);
        let mut out = Vec::new();
        builder.into_sourcemap().to_writer(&mut out).unwrap();
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()
    };
    let index = serde_json::json!({"version": 3, "file": "all.js", "sections": [
        {"offset": {"line": 0, "column": 0}, "map": map("webpack:///./src/a.ts")},
        {"offset": {"line": 10, "column": 0}, "map": map("webpack:///./node_modules/b/b.js")},
    ]});
    let shelf = Arc::new(Shelf::default());
    let url = "app:///all.js";
    shelf.put_as(
        by_url("app:///all.js.map", true),
        &shop.write("all.js.map", index.to_string()),
        None,
    );
    let frames = vec![
        frame(None, url, 1, 5),
        frame(Some("x".to_owned()), url, 11, 9),
        frame(None, url, 5, 1),
        frame(None, url, 1, 2),
    ];
    let answer =
        symbolicator(&shelf, &shop).symbolicate(request(Some("shop@1"), Vec::new(), frames)).await;
    let first = &answer.stacks[0][0].frames[0];
    assert_eq!(
        (first.filename.as_deref(), first.lineno, first.colno),
        (Some("src/a.ts"), Some(2), Some(1))
    );
    assert_eq!(first.context.as_ref().unwrap().line, "second");
    let second = &answer.stacks[0][1].frames[0];
    assert!(second.foreign);
    assert_eq!(second.function.as_deref(), Some("original"), "as its caller called it");
    for place in [2, 3] {
        assert_eq!(
            answer.stacks[0][place].status,
            Some(Status::MissingSymbol { file: "all.js.map".to_owned() })
        );
    }
}

#[tokio::test]
async fn a_map_that_cannot_be_read_is_said_in_words() {
    let shop = Workshop::new();
    for (content, words) in [
        ("{\"version\":3,", "EOF"),
        ("{\"version\":3,\"sources\":[\"a\"],\"names\":[],\"mappings\":\"!!!!\"}", ""),
    ] {
        let shelf = Arc::new(Shelf::default());
        shelf.put_as(by_url("app:///a.js.map", true), &shop.write("a.js.map", content), None);
        let frames = vec![frame(None, "app:///a.js", 1, 1)];
        let answer = symbolicator(&shelf, &shop)
            .symbolicate(request(Some("shop@1"), Vec::new(), frames))
            .await;
        let status = answer.stacks[0][0].status.clone();
        assert!(
            matches!(&status, Some(Status::Malformed { file, reason }) if file == "a.js.map" && reason.contains(words)),
            "{status:?}"
        );
    }
}
