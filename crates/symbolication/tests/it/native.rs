//! Machine code, against `addr2line`.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use loom_symbolication::{Frame, Module, Outcome, Stack, Status};

use crate::support::{Shelf, Workshop, bundle, crash_at, module, request, symbolicator};

const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static inline __attribute__((always_inline)) int halve(int x) {
    if (x < 0)
        abort();
    return x / 2;
}
static __attribute__((noinline)) int crash(int *p, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += halve(p[i]) * 3;
    return sum;
}
int main(int argc, char **argv) {
    int values[4] = {argc, 2, 3, 4};
    printf("%d %s\n", crash(values, 4), argv[0]);
    return 0;
}
"#;

const CPP: &str = r#"
#include <stdexcept>
#include <string>
#include <vector>
namespace shop {
template <typename T> struct Basket {
    std::vector<T> items;
    [[gnu::always_inline]] T total() const {
        T sum{};
        for (const T &item : items)
            sum += item;
        return sum;
    }
    [[gnu::noinline]] T pay(T limit) const {
        if (total() > limit)
            throw std::runtime_error("too much: " + std::to_string(total()));
        return total();
    }
};
}
int main(int argc, char **) {
    shop::Basket<int> basket{{1, 2, argc}};
    return basket.pay(100);
}
"#;

const RUST: &str = r#"
mod shop {
    #[inline(always)]
    pub fn price(cents: &[u64]) -> u64 {
        cents.iter().map(|c| c.checked_mul(3).expect("too dear")).sum()
    }
    pub struct Till<T>(pub T);
    impl<T: AsRef<[u64]>> Till<T> {
        #[inline(never)]
        pub fn ring(&self) -> u64 {
            price(self.0.as_ref()) + 1
        }
    }
}
fn main() {
    let cents: Vec<u64> = std::env::args().map(|a| a.len() as u64).collect();
    println!("{}", shop::Till(cents).ring());
}
"#;

/// Function, file and line of each frame, the outermost last.
type Frames = Vec<(String, String, u32)>;

/// The addresses of all instructions of the functions whose names hold one of these words.
fn instructions(shop: &Workshop, program: &str, words: &[&str]) -> Vec<u64> {
    let mut wanted = false;
    let mut found = Vec::new();
    for line in shop.run("objdump", &["-d", "--no-show-raw-insn", program]).lines() {
        if line.ends_with(">:") {
            wanted = words.iter().any(|word| line.contains(word));
        } else if wanted
            && let Some((address, what)) = line.trim().split_once(':')
            // What fills up behind a function belongs to none.
            && !["nop", "xchg   %ax,%ax", "int3", "data16"].iter().any(|fill| what.contains(fill))
        {
            found.extend(u64::from_str_radix(address, 16));
        }
    }
    assert!(found.len() >= 10, "{words:?}: {}", found.len());
    found
}

fn oracle(program: &Path, addresses: &[u64]) -> Vec<Frames> {
    let mut child = Command::new("addr2line")
        .args(["-a", "-f", "-i", "-e"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let asked: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(asked.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut all: Vec<Frames> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            all.push(Frames::new());
            continue;
        }
        let place = lines.next().unwrap().split(" (").next().unwrap();
        let (file, number) = place.rsplit_once(':').unwrap();
        let file = file.replace("/./", "/");
        all.last_mut().unwrap().push((line.to_owned(), file, number.parse().unwrap_or(0)));
    }
    all
}

fn frames(outcome: &Outcome) -> Frames {
    let frames = outcome.frames.iter().rev();
    frames
        .map(|frame| {
            // For addr2line a part of a function, or a copy of it, bears the name of the whole.
            let name = frame.raw_function.clone().or_else(|| frame.function.clone());
            (
                name.unwrap_or_default().replace(".cold", "").replace(".constprop.0", ""),
                frame.abs_path.clone().unwrap_or_default(),
                frame.lineno.unwrap_or(0),
            )
        })
        .collect()
}

/// All instructions of some functions, found by Loom in `debug` and by `addr2line` in `program`.
async fn agrees(shop: &Workshop, program: &str, debug: &str, words: &[&str]) -> usize {
    let addresses = instructions(shop, program, words);
    let expected = oracle(&shop.path(program), &addresses);
    let shelf = Arc::new(Shelf::default());
    shelf.put(&shop.path(debug));
    let base = 0x5555_0000_0000;
    let stacks = addresses.iter().map(|address| crash_at(base + address)).collect();
    let answer = symbolicator(&shelf, shop)
        .symbolicate(request(vec![module(&shop.path(program), base)], stacks))
        .await;
    let mut inlined = 0;
    for ((address, expected), outcome) in addresses.iter().zip(&expected).zip(&answer.stacks) {
        let outcome = &outcome[0];
        assert_eq!(
            outcome.status,
            Some(Status::Symbolicated { file: debug.to_owned() }),
            "{address:#x}"
        );
        assert_eq!(&frames(outcome), expected, "{program} {address:#x}");
        inlined += usize::from(expected.len() > 1);
        assert!(!outcome.frames[0].inlined && outcome.frames.iter().skip(1).all(|f| f.inlined));
    }
    assert!(inlined > 0, "no inlined call among {}", addresses.len());
    addresses.len()
}

#[tokio::test]
async fn every_instruction_of_a_c_program_is_where_addr2line_says() {
    let shop = Workshop::new();
    shop.write("a.c", C);
    shop.run("gcc", &["-g", "-O2", "-Wl,--build-id", "-o", "a", "a.c"]);
    agrees(&shop, "a", "a", &["<crash", "<main>"]).await;
}

#[tokio::test]
async fn a_split_and_compressed_debug_file_says_the_same() {
    let shop = Workshop::new();
    shop.write("a.c", C);
    shop.run("gcc", &["-g", "-O2", "-Wl,--build-id", "-o", "a", "a.c"]);
    shop.run("objcopy", &["--only-keep-debug", "--compress-debug-sections=zlib", "a", "a.debug"]);
    agrees(&shop, "a", "a.debug", &["<crash", "<main>"]).await;
}

#[tokio::test]
async fn every_instruction_of_a_cpp_program_is_where_addr2line_says() {
    let shop = Workshop::new();
    shop.write("b.cpp", CPP);
    shop.run("g++", &["-g", "-O2", "-std=c++17", "-Wl,--build-id", "-o", "b", "b.cpp"]);
    agrees(&shop, "b", "b", &["Basket", "<main>"]).await;
}

#[tokio::test]
async fn every_instruction_of_a_rust_program_is_where_addr2line_says() {
    let shop = Workshop::new();
    shop.write("c.rs", RUST);
    shop.run("rustc", &["-g", "-O", "-Clink-arg=-Wl,--build-id", "-o", "c", "c.rs"]);
    agrees(&shop, "c", "c", &["4Till", "1c4main"]).await;
}

#[tokio::test]
async fn names_are_those_of_the_source_and_the_address_after_a_call_is_of_the_call() {
    let shop = Workshop::new();
    shop.write("b.cpp", CPP);
    shop.run("g++", &["-g", "-O2", "-std=c++17", "-Wl,--build-id", "-o", "b", "b.cpp"]);
    // The instruction after the call of pay() in main().
    let listing = shop.run("objdump", &["-d", "--no-show-raw-insn", "b"]);
    let mut lines = listing.lines().skip_while(|line| !line.ends_with("<main>:"));
    lines.find(|line| line.contains("call") && line.contains("pay")).unwrap();
    let next = lines.next().unwrap().trim().split_once(':').unwrap().0;
    let after = u64::from_str_radix(next, 16).unwrap();
    let inner = instructions(&shop, "b", &["Basket"])[0];

    let shelf = Arc::new(Shelf::default());
    shelf.put(&shop.path("b"));
    let frame =
        |address| Frame { instruction_addr: Some(0x1000_0000 + address), ..Frame::default() };
    let stack = Stack { frames: vec![frame(after), frame(inner)], ..Stack::default() };
    let modules = vec![module(&shop.path("b"), 0x1000_0000)];
    let answer = symbolicator(&shelf, &shop).symbolicate(request(modules, vec![stack])).await;
    let outer = answer.stacks[0][0].frames.last().unwrap();
    assert_eq!((outer.function.as_deref(), outer.lineno), (Some("main"), Some(23)));
    let inner = answer.stacks[0][1].frames.first().unwrap();
    assert_eq!(inner.function.as_deref(), Some("shop::Basket<int>::pay"));
    assert!(inner.raw_function.as_deref().unwrap().starts_with("_ZNK4shop"));
    assert_eq!(inner.filename.as_deref(), Some("b.cpp"));
}

#[tokio::test]
async fn a_frame_says_why_it_has_no_symbols() {
    let shop = Workshop::new();
    shop.write("a.c", C);
    shop.run("gcc", &["-g", "-O2", "-Wl,--build-id", "-o", "a", "a.c"]);
    shop.run("gcc", &["-g", "-O1", "-Wl,--build-id", "-o", "other", "a.c"]);
    let broken = shop.write("broken", &std::fs::read(shop.path("a")).unwrap()[..9_000]);

    let shelf = Arc::new(Shelf::default());
    shelf.put(&shop.path("a"));
    let mut bad = module(&shop.path("a"), 0x4000_0000);
    bad.debug_id = Some("dfb8e43a-f242-3d73-a453-aeb6a777ef75".to_owned());
    shelf.put_as(
        loom_symbolication::Wanted::Debug {
            debug_id: bad.debug_id.clone(),
            code_id: None,
            symbols: true,
        },
        &broken,
        None,
    );
    let mut end = module(&shop.path("a"), 0x1000_0000);
    end.size = Some(0x10_0000);
    let mut other = module(&shop.path("other"), 0x2000_0000);
    other.size = Some(0x10_0000);
    let modules = vec![
        end,
        other.clone(),
        Module {
            code_file: Some("/lib/nameless.so".to_owned()),
            address: 0x3000_0000,
            size: Some(0x1000),
            ..Module::default()
        },
        bad,
    ];
    let stacks =
        [0x1000_0010, 0x2000_1000, 0x3000_0010, 0x9000, 0x4000_1100].map(crash_at).to_vec();
    let answer = symbolicator(&shelf, &shop).symbolicate(request(modules, stacks)).await;
    let statuses: Vec<Status> =
        answer.stacks.iter().map(|stack| stack[0].status.clone().unwrap()).collect();
    assert_eq!(statuses[0], Status::MissingSymbol { file: "a".to_owned() });
    let wanted = format!("other {}", other.debug_id.clone().unwrap());
    assert_eq!(statuses[1], Status::MissingFile { wanted });
    assert!(
        matches!(&statuses[2], Status::MissingFile { wanted } if wanted.contains("nameless.so"))
    );
    assert_eq!(statuses[3], Status::UnknownImage);
    assert!(
        matches!(&statuses[4], Status::Malformed { file, reason } if file == "broken" && !reason.is_empty()),
        "{:?}",
        statuses[4]
    );
    assert_eq!(answer.missing.len(), 1);
    assert!(format!("{:?}", answer.missing[0]).contains(&other.debug_id.unwrap()));
}

#[tokio::test]
async fn relative_addresses_and_sources_out_of_a_bundle() {
    let shop = Workshop::new();
    let source = shop.write("a.c", C);
    shop.run("gcc", &["-g", "-O0", "-Wl,--build-id", "-o", "a", "a.c"]);
    let address = instructions(&shop, "a", &["<crash>"])[0];
    let module = module(&shop.path("a"), 0x7000_0000);
    let path = source.to_str().unwrap();
    let sources = bundle(
        serde_json::json!({"debug_id": module.debug_id, "arch": "x86_64"}),
        &[("files/a.c", serde_json::json!({"type": "source", "path": path}), C.as_bytes())],
    );
    let shelf = Arc::new(Shelf::default());
    shelf.put(&shop.path("a"));
    shelf.put(&shop.write("a.src.zip", &sources));
    let frame = Frame {
        instruction_addr: Some(address),
        addr_mode: Some("rel:1".to_owned()),
        ..Frame::default()
    };
    let modules = vec![Module::default(), module];
    let stacks = vec![Stack { frames: vec![frame], ..Stack::default() }];
    let answer = symbolicator(&shelf, &shop).symbolicate(request(modules, stacks)).await;
    let found = &answer.stacks[0][0].frames[0];
    assert_eq!((found.function.as_deref(), found.lineno), (Some("crash"), Some(9)));
    let context = found.context.clone().unwrap();
    assert_eq!(context.line, "static __attribute__((noinline)) int crash(int *p, int n) {");
    assert_eq!((context.pre.len(), context.post.len()), (5, 5));
    assert_eq!(context.pre[4], "}");
    assert_eq!(found.image_addr, None);
}

#[tokio::test]
async fn a_program_whose_lines_lie_in_other_files_has_its_functions_named() {
    let shop = Workshop::new();
    shop.write("a.c", "int boom(int x) { return 7 / x; }\nint main(void) { return boom(0); }\n");
    shop.run("gcc", &["-g", "-gsplit-dwarf", "-O0", "-Wl,--build-id", "-o", "a", "a.c"]);
    let symbols = shop.run("nm", &["a"]);
    let boom = symbols.lines().find(|line| line.ends_with(" boom")).unwrap();
    let address = u64::from_str_radix(boom.split(' ').next().unwrap(), 16).unwrap() + 4;
    let shelf = Arc::new(Shelf::default());
    shelf.put(&shop.path("a"));
    let base = 0x5000_0000;
    let request = request(vec![module(&shop.path("a"), base)], vec![crash_at(base + address)]);
    let answer = symbolicator(&shelf, &shop).symbolicate(request).await;
    let frame = &answer.stacks[0][0].frames[0];
    assert_eq!((frame.function.as_deref(), frame.lineno), (Some("boom"), None));
}
