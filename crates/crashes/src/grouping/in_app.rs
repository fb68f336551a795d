//! Whether a frame is of the application, where nobody said it.

use super::family::Family;
use crate::event::{Frame, FrameStatus};

/// By where libraries of its language lie and how they are called.
pub(super) fn decide(frame: &Frame, family: Family) -> bool {
    let path = frame.abs_path.as_deref().or(frame.filename.as_deref()).unwrap_or_default();
    let module = frame.module.as_deref().unwrap_or_default();
    let function = frame.function.as_deref().unwrap_or_default();
    match family {
        Family::JavaScript => !library_script(path),
        Family::Python => {
            let place =
                ["site-packages", "dist-packages", "/lib/python", "\\lib\\python", "<frozen"];
            !place.iter().any(|part| path.contains(part))
        }
        Family::Ruby => {
            !(["/gems/", "/lib/ruby/", "<internal:"].iter().any(|part| path.contains(part)))
        }
        Family::Php => !(path.contains("/vendor/") || path == "[internal]" || path.is_empty()),
        Family::Java => {
            let class = if module.is_empty() { function } else { module };
            !begins(class, JAVA)
        }
        Family::Go => !library_go(path, module),
        Family::DotNet => {
            !begins(module, &["System", "Microsoft", "mscorlib", "Windows", "Internal", "Interop"])
        }
        Family::Native => !library_native(frame, function),
        Family::Other => !["/node_modules/", "/vendor/", "/site-packages/"]
            .iter()
            .any(|part| path.contains(part)),
    }
}

/// After symbolication a path is known that the one who said `in_app` did not know.
pub(super) fn overruled(frame: &Frame, family: Family) -> Option<bool> {
    let symbolicated = matches!(frame.symbolication, Some(FrameStatus::Symbolicated { .. }));
    let said = frame.in_app?;
    (symbolicated && said && family == Family::JavaScript && !decide(frame, family))
        .then_some(false)
}

const JAVA: &[&str] = &[
    "java",
    "javax",
    "jakarta",
    "jdk",
    "sun",
    "com.sun",
    "kotlin",
    "kotlinx",
    "scala",
    "groovy",
    "android",
    "androidx",
    "dalvik",
    "com.android",
    "org.junit",
    "org.apache",
    "org.springframework",
    "org.hibernate",
    "io.netty",
    "reactor",
];

/// `java.util.List` begins with `java`, `javassist` does not.
fn begins(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
    })
}

fn library_script(path: &str) -> bool {
    const PARTS: &[&str] = &[
        "/node_modules/",
        "\\node_modules\\",
        "webpack/bootstrap",
        "webpack/runtime",
        "-extension://",
        "[native code]",
        "<anonymous>",
    ];
    path.starts_with("node:")
        || path.starts_with("internal/")
        || path.starts_with("native ")
        || path.starts_with("node_modules/")
        || path == "native"
        || PARTS.iter().any(|part| path.contains(part))
}

/// Packages of the standard library have no dot in the first part of their path.
fn library_go(path: &str, module: &str) -> bool {
    if path.contains("/pkg/mod/") || path.contains("/vendor/") || path.contains("/go/src/") {
        return true;
    }
    let first = module.split('/').next().unwrap_or_default();
    let standard = [
        "runtime", "net", "os", "io", "fmt", "sync", "syscall", "testing", "reflect", "encoding",
        "context", "database", "bufio", "bytes", "strings", "strconv", "time", "internal",
        "crypto", "errors", "sort", "html", "text", "log", "math", "path", "regexp", "iter",
        "slices", "maps",
    ];
    !module.is_empty() && standard.contains(&first)
}

fn library_native(frame: &Frame, function: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "std::",
        "core::",
        "alloc::",
        "backtrace::",
        "tokio::",
        "futures_util::",
        "futures_core::",
        "rayon_core::",
        "hyper::",
        "tracing::",
        "sentry",
        "panic_unwind::",
        "__rust",
        "rust_begin_unwind",
        "rust_panic",
        "rust_eh_personality",
        "__libc_",
        "_start",
        "__cxa_",
        "__cxx",
        "abort",
        "raise",
        "gsignal",
        "__pthread",
        "start_thread",
        "clone",
        "__gnu_cxx::",
        "objc_",
        "swift_",
        "UIApplicationMain",
        "BaseThreadInitThunk",
        "RtlUserThreadStart",
        "_sigtramp",
        "thread_start",
    ];
    const PLACES: &[&str] = &[
        "/usr/lib",
        "/lib/",
        "/lib64/",
        "/System/Library/",
        "/usr/local/lib/",
        "/Library/Apple",
        "/apex/",
        "/system/lib",
        "\\Windows\\",
        "\\windows\\",
        "/Symbols/System/",
    ];
    let name = function.trim_start_matches(['<', '_', '&']);
    let path = frame.abs_path.as_deref().unwrap_or_default();
    PREFIXES.iter().any(|prefix| function.starts_with(prefix) || name.starts_with(prefix))
        || path.contains("/rustc/")
        || path.contains("/.cargo/registry/")
        || path.contains("/cargo/registry/")
        || frame.package.as_deref().is_some_and(|package| {
            PLACES.iter().any(|place| {
                package.starts_with(place) || (place.starts_with('\\') && package.contains(place))
            }) || package.contains("libswift")
        })
}
