//! Pairs of events that are the same fault, or are not.

use serde_json::{Value, json};

use super::{Rules, event, group, grouped};

/// `place function`, with `!` before it when it is of a library; the last is the innermost.
fn frames(platform: &str, frames: &[&str]) -> Value {
    let frame = |text: &&str| {
        let (in_app, text) = text.strip_prefix('!').map_or((true, *text), |text| (false, text));
        let (place, function) = text.split_once(' ').unwrap_or((text, ""));
        let by_file = matches!(platform, "javascript" | "native" | "rust");
        json!({
            (if by_file { "filename" } else { "module" }): place,
            "function": (!function.is_empty()).then_some(function),
            "in_app": in_app, "lineno": 1,
        })
    };
    Value::Array(frames.iter().map(frame).collect())
}

fn error(platform: &str, kind: &str, value: &str, stack: &[&str]) -> Value {
    json!({
        "platform": platform,
        "exception": {"values": [{"type": kind, "value": value, "stacktrace": {"frames": frames(platform, stack)}}]},
    })
}

fn chain(platform: &str, exceptions: &[(&str, &str, &[&str])]) -> Value {
    let values: Vec<_> = exceptions
        .iter()
        .map(|(kind, value, stack)| {
            json!({"type": kind, "value": value, "stacktrace": {"frames": frames(platform, stack)}})
        })
        .collect();
    json!({"platform": platform, "exception": {"values": values}})
}

fn message(text: &str) -> Value {
    json!({"message": text})
}

/// Without a stack.
fn bare(kind: &str, value: &str) -> Value {
    json!({"exception": [{"type": kind, "value": value}]})
}

fn with(mut event: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    event.pointer_mut(parent).unwrap()[name] = value;
    event
}

/// As [`with`], of the innermost frame.
fn innermost(mut event: Value, name: &str, value: Value) -> Value {
    let frames = event.pointer_mut("/exception/values/0/stacktrace/frames").unwrap();
    frames.as_array_mut().unwrap().last_mut().unwrap()[name] = value;
    event
}

fn python() -> Value {
    error(
        "python",
        "ValueError",
        "order 17 is empty",
        &["!django.core get_response", "shop.views pay", "shop.cart total"],
    )
}

fn browser(file: &str, function: &str) -> Value {
    error(
        "javascript",
        "TypeError",
        "x is undefined",
        &["https://e.org/app.js start", &format!("{file} {function}")],
    )
}

fn native(address: u64, start: u64, id: &str) -> Value {
    json!({
        "platform": "native",
        "exception": [{"type": "SIGSEGV", "value": "fatal", "stacktrace": {"frames": [
            {"instruction_addr": format!("0x{address:x}"), "package": "/opt/shop/bin/shop"}]}}],
        "debug_meta": {"images": [{"type": "elf", "debug_id": id, "code_file": "/opt/shop/bin/shop",
            "image_addr": format!("0x{start:x}"), "image_size": 65536}]},
    })
}

fn recursion(depth: usize, circle: &[&str]) -> Value {
    let mut stack = vec!["shop.views pay"];
    for _ in 0..depth {
        stack.extend(circle);
    }
    error("python", "RecursionError", "maximum recursion depth exceeded", &stack)
}

fn exception_group(children: &[&str]) -> Value {
    let mut values: Vec<_> = children
        .iter()
        .enumerate()
        .map(|(at, kind)| {
            json!({"type": kind, "value": format!("task {at}"), "mechanism": {"exception_id": at + 1, "parent_id": 0},
                "stacktrace": {"frames": frames("python", &["shop.jobs run"])}})
        })
        .collect();
    values.push(
        json!({"type": "ExceptionGroup", "value": format!("{} sub-exceptions", children.len()),
        "mechanism": {"exception_id": 0, "is_exception_group": true},
        "stacktrace": {"frames": frames("python", &["shop.jobs all"])}}),
    );
    json!({"platform": "python", "exception": {"values": values}})
}

const SAME: bool = true;
const OTHER: bool = false;

#[allow(clippy::too_many_lines, reason = "a table")]
fn pairs() -> Vec<(&'static str, bool, Value, Value)> {
    let rust = |hash: &str| {
        error(
            "rust",
            "panic",
            "index out of bounds",
            &[
                &format!("src/main.rs shop::run::{{{{closure}}}}::h{hash}"),
                &format!("src/cart.rs <shop::Cart as shop::Total>::total::h{hash}"),
            ],
        )
    };
    vec![
        // Messages
        ("numbers in messages", SAME, message("order 17 failed"), message("order 4711 failed")),
        (
            "UUIDs in messages",
            SAME,
            message("job 0192f3c4-7d1e-7c3a-9b2f-8a1d5e6f7a8b died"),
            message("job 11111111-2222-3333-4444-555555555555 died"),
        ),
        (
            "addresses of mail",
            SAME,
            message("no mail to ann@example.org"),
            message("no mail to bob@mail.example.com"),
        ),
        (
            "URLs",
            SAME,
            message("GET https://e.org/a?x=1 failed"),
            message("GET https://e.org/b/c failed"),
        ),
        (
            "times",
            SAME,
            message("late at 2026-05-01T12:00:00Z"),
            message("late at 2026-06-11T01:22:13.5Z"),
        ),
        (
            "addresses of hosts",
            SAME,
            message("no answer of 10.0.0.1:5432"),
            message("no answer of 192.168.17.4:6432"),
        ),
        ("durations", SAME, message("timed out after 30s"), message("timed out after 1.5s")),
        (
            "commits",
            SAME,
            message("cannot check out 4f2a9c1b"),
            message("cannot check out 9d8e7f6a5b4c"),
        ),
        (
            "memory addresses",
            SAME,
            message("bad pointer 0x7fffdeadbeef"),
            message("bad pointer 0x10"),
        ),
        ("different words", OTHER, message("cannot open file"), message("cannot close file")),
        (
            "names in quotes",
            OTHER,
            message("missing field 'email'"),
            message("missing field 'name'"),
        ),
        (
            "names with numbers",
            OTHER,
            message("sha256 is not known"),
            message("sha512 is not known"),
        ),
        (
            "template of a message",
            SAME,
            json!({"logentry": {"message": "user %s is gone", "formatted": "user ann is gone"}}),
            json!({"logentry": {"message": "user %s is gone", "formatted": "user bob is gone"}}),
        ),
        (
            "other templates",
            OTHER,
            json!({"logentry": {"message": "user %s is gone", "formatted": "user ann is gone"}}),
            json!({"logentry": {"message": "group %s is gone", "formatted": "group ann is gone"}}),
        ),
        ("lines behind the second", SAME, message("a\nb\nc 1 x"), message("a\n\nb\nd")),
        (
            "the level of a message",
            SAME,
            message("full"),
            json!({"message": "full", "level": "warning"}),
        ),
        // Exceptions without a stack
        (
            "ids in values without a stack",
            SAME,
            bare("KeyError", "user_17"),
            bare("KeyError", "user_18"),
        ),
        ("types without a stack", OTHER, bare("KeyError", "a"), bare("ValueError", "a")),
        ("values without a stack", OTHER, bare("KeyError", "email"), bare("KeyError", "name")),
        // Stacks
        (
            "values with a stack",
            SAME,
            python(),
            with(python(), "/exception/values/0/value", json!("something else")),
        ),
        (
            "lines and columns",
            SAME,
            python(),
            innermost(innermost(python(), "lineno", json!(99)), "colno", json!(7)),
        ),
        (
            "types with the same stack",
            OTHER,
            python(),
            with(python(), "/exception/values/0/type", json!("KeyError")),
        ),
        ("another function", OTHER, python(), innermost(python(), "function", json!("discount"))),
        ("another module", OTHER, python(), innermost(python(), "module", json!("shop.order"))),
        (
            "another caller",
            OTHER,
            python(),
            error("python", "ValueError", "", &["shop.admin refund", "shop.cart total"]),
        ),
        (
            "other libraries around it",
            SAME,
            python(),
            error(
                "python",
                "ValueError",
                "",
                &["!flask.app dispatch", "!flask.app run", "shop.views pay", "shop.cart total"],
            ),
        ),
        (
            "where a library fails inside",
            SAME,
            python(),
            error(
                "python",
                "ValueError",
                "",
                &["shop.views pay", "shop.cart total", "!json.decoder decode"],
            ),
        ),
        (
            "only libraries",
            OTHER,
            error("python", "IOError", "", &["!socket connect"]),
            error("python", "IOError", "", &["!socket accept"]),
        ),
        (
            "release and environment",
            SAME,
            python(),
            with(with(python(), "/release", json!("2.0")), "/environment", json!("test")),
        ),
        // Python
        (
            "qualified names of newer versions",
            SAME,
            python(),
            innermost(python(), "function", json!("Cart.total")),
        ),
        (
            "comprehensions of older versions",
            SAME,
            python(),
            error(
                "python",
                "ValueError",
                "",
                &["shop.views pay", "shop.cart <listcomp>", "shop.cart total"],
            ),
        ),
        (
            "paths of versions",
            SAME,
            json!({"platform": "python", "exception": [{"type": "E", "stacktrace": {"frames": [
                {"module": "asyncio.runners", "function": "run", "abs_path": "/usr/lib/python3.11/asyncio/runners.py"},
                {"module": "shop.jobs", "function": "work", "abs_path": "/app/shop/jobs.py"}]}}]}),
            json!({"platform": "python", "exception": [{"type": "E", "stacktrace": {"frames": [
                {"module": "asyncio.runners", "function": "Runner.run", "abs_path": "/usr/lib/python3.13/asyncio/runners.py"},
                {"module": "asyncio.base_events", "function": "_run_once", "abs_path": "/usr/lib/python3.13/asyncio/base_events.py"},
                {"module": "shop.jobs", "function": "work", "abs_path": "/app/shop/jobs.py"}]}}]}),
        ),
        (
            "scripts of other names",
            OTHER,
            json!({"platform": "python", "exception": [{"type": "E", "stacktrace": {"frames": [{"module": "__main__", "filename": "a.py", "function": "main"}]}}]}),
            json!({"platform": "python", "exception": [{"type": "E", "stacktrace": {"frames": [{"module": "__main__", "filename": "b.py", "function": "main"}]}}]}),
        ),
        (
            "a group with more of the same",
            SAME,
            exception_group(&["ValueError"]),
            exception_group(&["ValueError", "ValueError"]),
        ),
        (
            "a group with another fault",
            OTHER,
            exception_group(&["ValueError"]),
            exception_group(&["ValueError", "KeyError"]),
        ),
        // Recursion
        (
            "depth of recursion",
            SAME,
            recursion(10, &["shop.tree walk"]),
            recursion(200, &["shop.tree walk"]),
        ),
        (
            "depth of recursion in a circle",
            SAME,
            recursion(10, &["shop.tree even", "shop.tree odd"]),
            recursion(90, &["shop.tree even", "shop.tree odd"]),
        ),
        (
            "another circle",
            OTHER,
            recursion(10, &["shop.tree even", "shop.tree odd"]),
            recursion(10, &["shop.tree even", "shop.tree none"]),
        ),
        // Chains
        (
            "causes",
            OTHER,
            chain(
                "java",
                &[
                    ("SQLException", "", &["com.e.Db query"]),
                    ("OrderException", "", &["com.e.Order pay"]),
                ],
            ),
            chain(
                "java",
                &[
                    ("IOException", "", &["com.e.Db query"]),
                    ("OrderException", "", &["com.e.Order pay"]),
                ],
            ),
        ),
        (
            "messages of causes",
            SAME,
            chain(
                "java",
                &[
                    ("SQLException", "row 1", &["com.e.Db query"]),
                    ("OrderException", "a", &["com.e.Order pay"]),
                ],
            ),
            chain(
                "java",
                &[
                    ("SQLException", "row 2", &["com.e.Db query"]),
                    ("OrderException", "b", &["com.e.Order pay"]),
                ],
            ),
        ),
        (
            "wrapped and not",
            OTHER,
            chain("java", &[("SQLException", "", &["com.e.Db query"])]),
            chain(
                "java",
                &[
                    ("SQLException", "", &["com.e.Db query"]),
                    ("OrderException", "", &["com.e.Order pay"]),
                ],
            ),
        ),
        (
            "thrown again where it was caught",
            SAME,
            python(),
            innermost(
                error(
                    "python",
                    "ValueError",
                    "",
                    &[
                        "!django.core get_response",
                        "shop.views pay",
                        "shop.views pay",
                        "shop.cart total",
                    ],
                ),
                "lineno",
                json!(5),
            ),
        ),
        // JavaScript
        (
            "content hashes of bundles",
            SAME,
            browser("https://e.org/main.4f2a9c1b.js", "pay"),
            browser("https://e.org/main.9d8e7f6a.js", "pay"),
        ),
        (
            "hashes of a bundler of another kind",
            SAME,
            browser("/assets/index-DGkqVrXw.js", "pay"),
            browser("/assets/index-B9xYz12a.js", "pay"),
        ),
        (
            "hosts and queries of scripts",
            SAME,
            browser("https://a.e.org/app.js?v=1", "pay"),
            browser("https://b.e.org/app.js?v=2", "pay"),
        ),
        (
            "other scripts",
            OTHER,
            browser("https://e.org/cart.js", "pay"),
            browser("https://e.org/order.js", "pay"),
        ),
        (
            "receivers",
            SAME,
            browser("cart.js", "Cart.pay"),
            browser("cart.js", "Object.pay [as onClick]"),
        ),
        ("async and new", SAME, browser("cart.js", "async pay"), browser("cart.js", "pay")),
        (
            "names of another browser",
            SAME,
            browser("cart.js", "async*pay"),
            browser("cart.js", "pay/<"),
        ),
        (
            "names in minified bundles",
            SAME,
            browser("app.4f2a9c1b.min.js", "t"),
            browser("app.9d8e7f6a.min.js", "e"),
        ),
        (
            "anonymous functions by their line",
            OTHER,
            innermost(
                browser("cart.js", "<anonymous>"),
                "context_line",
                json!("  items.map(x => x.price)"),
            ),
            innermost(
                browser("cart.js", "<anonymous>"),
                "context_line",
                json!("  items.map(x => x.name)"),
            ),
        ),
        (
            "white space of a line",
            SAME,
            innermost(browser("cart.js", "<anonymous>"), "context_line", json!("  items.map(x)")),
            innermost(browser("cart.js", "?"), "context_line", json!("items.map(x)  ")),
        ),
        // Native
        ("hashes of Rust names", SAME, rust("0123456789abcdef"), rust("fedcba9876543210")),
        (
            "template arguments",
            SAME,
            error("native", "SIGABRT", "", &["a.cpp void shop::add<int>(int)"]),
            error(
                "native",
                "SIGABRT",
                "",
                &["a.cpp void shop::add<std::vector<long>>(std::vector<long> const&)"],
            ),
        ),
        (
            "lambdas of C++",
            SAME,
            error("native", "SIGABRT", "", &["a.cpp shop::run()::$_0::operator()(int) const"]),
            error("native", "SIGABRT", "", &["a.cpp shop::run()::$_7::operator()(int) const"]),
        ),
        (
            "where an image was loaded",
            SAME,
            native(0x1_1234, 0x1_0000, "AA-1"),
            native(0x7f00_1234, 0x7f00_0000, "aa-1"),
        ),
        (
            "other places in an image",
            OTHER,
            native(0x1_1234, 0x1_0000, "aa-1"),
            native(0x1_1235, 0x1_0000, "aa-1"),
        ),
        (
            "signals that the SDK made up",
            SAME,
            with(
                native(0x1_1234, 0x1_0000, "aa"),
                "/exception/0/mechanism",
                json!({"synthetic": true}),
            ),
            with(
                with(
                    native(0x1_1234, 0x1_0000, "aa"),
                    "/exception/0/mechanism",
                    json!({"synthetic": true}),
                ),
                "/exception/0/type",
                json!("EXC_BAD_ACCESS"),
            ),
        ),
        // Others
        (
            "lambdas of Java",
            SAME,
            error("java", "E", "", &["com.e.Cart$$Lambda$14/0x8 lambda$pay$3"]),
            error("java", "E", "", &["com.e.Cart$$Lambda$99/0x9 lambda$pay$0"]),
        ),
        (
            "proxies of Java",
            SAME,
            error("java", "E", "", &["com.e.Cart$$EnhancerBySpringCGLIB$$1a2b pay"]),
            error("java", "E", "", &["com.e.Cart$$EnhancerBySpringCGLIB$$9f8e pay"]),
        ),
        (
            "state machines of .NET",
            SAME,
            error("csharp", "E", "", &["Shop.Cart <Pay>d__12.MoveNext"]),
            error("csharp", "E", "", &["Shop.Cart <Pay>d__3.MoveNext"]),
        ),
        (
            "functions in functions of Go",
            SAME,
            error("go", "E", "", &["main (*Server).Handle.func1"]),
            error("go", "E", "", &["main (*Server).Handle.func2.1"]),
        ),
        (
            "blocks of Ruby",
            SAME,
            error("ruby", "E", "", &["cart block in total"]),
            error("ruby", "E", "", &["cart Cart#total"]),
        ),
        (
            "closures of PHP",
            SAME,
            error("php", "E", "", &["cart {closure}"]),
            error("php", "E", "", &["cart {closure:/app/cart.php:12}"]),
        ),
        // Fingerprints
        (
            "the same fingerprint",
            SAME,
            with(python(), "/fingerprint", json!(["payments"])),
            with(message("x"), "/fingerprint", json!(["payments"])),
        ),
        (
            "another fingerprint",
            OTHER,
            with(python(), "/fingerprint", json!(["a"])),
            with(python(), "/fingerprint", json!(["b"])),
        ),
        (
            "the default as fingerprint",
            SAME,
            python(),
            with(python(), "/fingerprint", json!(["{{ default }}"])),
        ),
        (
            "the default and more",
            OTHER,
            python(),
            with(python(), "/fingerprint", json!(["{{default}}", "eu"])),
        ),
        (
            "variables",
            OTHER,
            with(
                with(python(), "/transaction", json!("/a")),
                "/fingerprint",
                json!(["{{ default }}", "{{ transaction }}"]),
            ),
            with(
                with(python(), "/transaction", json!("/b")),
                "/fingerprint",
                json!(["{{ default }}", "{{ transaction }}"]),
            ),
        ),
        // Threads, and nothing
        (
            "messages with a stack",
            SAME,
            json!({"platform": "python", "message": "a", "threads": [{"current": true, "stacktrace": {"frames": frames("python", &["shop.jobs run"])}}]}),
            json!({"platform": "python", "message": "b", "threads": [{"current": true, "stacktrace": {"frames": frames("python", &["shop.jobs run"])}}]}),
        ),
        (
            "the thread that crashed",
            OTHER,
            json!({"platform": "cocoa", "threads": [{"id": 1, "current": true, "stacktrace": {"frames": frames("native", &["a.m a"])}}, {"id": 2, "crashed": true, "stacktrace": {"frames": frames("native", &["a.m b"])}}]}),
            json!({"platform": "cocoa", "threads": [{"id": 1, "current": true, "crashed": true, "stacktrace": {"frames": frames("native", &["a.m a"])}}, {"id": 2, "stacktrace": {"frames": frames("native", &["a.m b"])}}]}),
        ),
        (
            "nothing but a transaction",
            OTHER,
            json!({"transaction": "/a"}),
            json!({"transaction": "/b"}),
        ),
    ]
}

#[test]
fn the_same_fault_is_one_issue_and_another_is_another() {
    let pairs = pairs();
    assert!(pairs.len() >= 60);
    let mut wrong = Vec::new();
    for (name, same, one, other) in pairs {
        let (one, other) = (grouped(one), grouped(other));
        if (one.hash == other.hash) != same {
            let expected = if same { "same" } else { "not the same" };
            wrong.push(format!("{name}: {expected}\n  {}\n  {}", one.components, other.components));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rules_of_the_project_come_first() {
    let rules = |rules: Value| Rules::parse(&rules).unwrap();
    let with_rules = |raw: Value, of: Value| group(&event(raw), &rules(of));
    let other = || with(python(), "/exception/values/0/type", json!("KeyError"));
    // A fingerprint: of two that are not the same, one.
    let one = json!([{"match": {"module": "shop.*", "exception_type": ["ValueError", "Key*"]}, "fingerprint": ["cart"], "title": "Cart: {{ type }}"}]);
    let (a, b) = (with_rules(python(), one.clone()), with_rules(other(), one));
    assert_eq!(a.hash, b.hash);
    assert_eq!((a.title.as_str(), b.title.as_str()), ("Cart: ValueError", "Cart: KeyError"));
    assert_eq!(a.components["by"], "rule");
    assert_eq!(a.components["fingerprint"]["rule"], 1);
    // The first that matches counts, and wins over the client's.
    let two = json!([
        {"match": {"message": "nothing like it"}, "fingerprint": ["no"]},
        {"match": {"platform": "!ruby"}, "fingerprint": ["yes"]},
        {"match": {"platform": "python"}, "fingerprint": ["later"]},
    ]);
    let found = with_rules(with(python(), "/fingerprint", json!(["client"])), two);
    assert_eq!(found.components["fingerprint"]["parts"][0]["text"], "yes");
    // A frame that does not count, and one that is not of the application.
    for rule in [json!({"group": "off"}), json!({"in_app": false})] {
        let mut rule = rule;
        rule["match"] = json!({"function": "discount*"});
        let deeper = error(
            "python",
            "ValueError",
            "",
            &["shop.views pay", "shop.cart total", "shop.cart discount_all"],
        );
        assert_ne!(grouped(deeper.clone()).hash, grouped(python()).hash);
        assert_eq!(with_rules(deeper, json!([rule])).hash, grouped(python()).hash);
    }
    // A library's frame that is of the application.
    let framework = json!([{"match": {"module": "django.*"}, "in_app": true}]);
    assert_ne!(with_rules(python(), framework).hash, grouped(python()).hash);
}

#[test]
fn it_is_explained_what_counts_and_why() {
    let found = grouped(error(
        "python",
        "ValueError",
        "x 5",
        &["!django.core get_response", "shop.views pay", "shop.views pay", "shop.cart <listcomp>"],
    ));
    assert_eq!(found.components["by"], "stack");
    let frames = &found.components["parts"][0]["frames"];
    assert_eq!(frames[0]["why"], "not of the application");
    assert_eq!(frames[1]["counts"], true);
    assert_eq!(frames[1]["as"]["function"], "pay");
    assert_eq!(frames[2]["why"], "repeats calls before it");
    assert_eq!(frames[3]["why"], "a comprehension counts as the function that it is in");
    assert_eq!(found.title, "ValueError: x 5");
    assert_eq!(found.culprit.as_deref(), Some("<listcomp> in shop.cart"));
    let found = grouped(bare("KeyError", "user_17"));
    assert_eq!(found.components["by"], "exception");
    assert_eq!(found.components["parts"][0]["value"], "user_<int>");
    assert_eq!(found.components["parts"][0]["value_counts"], true);
}

#[test]
fn a_captured_message_with_a_stack_is_called_by_its_text() {
    let made_up = json!({"handled": true, "synthetic": true, "type": "generic"});
    let thrown = with(browser("app.js", "pay"), "/exception/values/0/mechanism", made_up);
    assert_eq!(grouped(thrown.clone()).title, "TypeError in pay");
    let mut said = with(thrown, "/exception/values/0/value", json!("the cart is empty"));
    said["exception"]["values"][0]["type"] = Value::Null;
    assert_eq!(grouped(said).title, "the cart is empty");
}
