//! Names of files and modules without what builds put into them.

use super::family::Family;

/// Of a path or URL: its last part, in lower case, without query and content hash.
pub(super) fn name(path: &str, family: Family) -> String {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let path = path.get(..end).unwrap_or_default().trim_end_matches(['/', '\\']);
    let base = path.rsplit(['/', '\\']).next().unwrap_or_default();
    if matches!(family, Family::JavaScript | Family::Other) {
        without_hash(base).to_ascii_lowercase()
    } else {
        base.to_ascii_lowercase()
    }
}

/// `main.4f2a9c1b.js`, `index-BxYz12_a.js`, `chunk~0a1b2c3d4e.bundle.js`.
fn without_hash(base: &str) -> String {
    let parts: Vec<&str> = base.split_inclusive(['.', '-', '~']).collect();
    let (first, rest) = match parts.split_first() {
        Some((first, rest)) if !rest.is_empty() => (*first, rest),
        _ => return base.to_owned(),
    };
    let mut out = first.to_owned();
    let last = rest.len() - 1;
    for (at, part) in rest.iter().enumerate() {
        let plain = part.trim_end_matches(['.', '-', '~']);
        if at == last || !is_hash(plain) {
            out.push_str(part);
            continue;
        }
        // What separated it goes with it; what follows it stays.
        out.pop();
        out.push_str(part.get(plain.len()..).unwrap_or_default());
    }
    out
}

/// Is it the name of a bundle that a build wrote?
pub(super) fn is_built(path: &str) -> bool {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let base = path.get(..end).unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    base.contains(".min.")
        || base.contains(".bundle.")
        || base.contains(".chunk.")
        || without_hash(base) != base
}

fn is_hash(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    if part.len() >= 6 && part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return digits > 0 || part.len() >= 16;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !(8..=32).contains(&part.len()) || !part.bytes().all(plain) {
        return false;
    }
    // A name in humps has few for its length.
    humps(part) * 3 >= part.len()
}

/// `UserProfile2` has three, `DGkqVrXw` too.
fn humps(text: &str) -> usize {
    #[derive(PartialEq, Clone, Copy)]
    enum Class {
        Upper,
        Lower,
        Digit,
    }
    let mut humps = 0;
    let mut before = None;
    for byte in text.bytes() {
        let class = match byte {
            b'A'..=b'Z' => Class::Upper,
            b'a'..=b'z' => Class::Lower,
            _ => Class::Digit,
        };
        let goes_on =
            before == Some(class) || (before == Some(Class::Upper) && class == Class::Lower);
        humps += usize::from(!goes_on);
        before = Some(class);
    }
    humps
}

/// Of a class or module: without what is made anew at run time or by a build.
pub(super) fn module(module: &str, family: Family) -> String {
    match family {
        Family::Java => java(module),
        Family::JavaScript => {
            let mut parts: Vec<_> = module.split('/').map(without_hash).collect();
            parts.retain(|part| !part.is_empty());
            parts.join("/")
        }
        Family::Native => super::function::without_rust_hash(module).to_owned(),
        _ => module.to_owned(),
    }
}

/// `Foo$$Lambda$14/0x0000`, `Foo$$EnhancerBySpringCGLIB$$1a2b`, `$Proxy12`, `GeneratedMethodAccessor7`.
pub(super) fn java(name: &str) -> String {
    let mut name = name;
    for mark in [
        "$$Lambda",
        "$$EnhancerBy",
        "$$FastClassBy",
        "$$SpringCGLIB",
        "$HibernateProxy$",
        "_$$_jvst",
        "_$$_javassist",
        "$MockitoMock$",
        "$ByteBuddy$",
    ] {
        if let Some((before, _)) = name.split_once(mark) {
            name = before;
        }
    }
    let generated = ["$Proxy", "GeneratedMethodAccessor", "GeneratedConstructorAccessor"];
    if generated.iter().any(|mark| name.contains(mark)) {
        name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_hashes_are_cut() {
        for (path, expected) in [
            ("https://cdn.e.org/static/main.4f2a9c1b.js?v=3", "main.js"),
            ("/assets/index-DGkqVrXw.js", "index.js"),
            ("/assets/index-BxYz12_a.js", "index.js"),
            ("app:///_next/static/chunks/pages/_app-0a1b2c3d4e5f6a7b.js", "_app.js"),
            ("vendors~main.0a1b2c3d4e.chunk.js", "vendors~main.chunk.js"),
            ("C:\\app\\UserProfile.tsx", "userprofile.tsx"),
            ("react-UserProfile.js", "react-userprofile.js"),
            ("app.facade.js", "app.facade.js"),
            ("jquery-3.7.1.min.js", "jquery-3.7.1.min.js"),
            ("app.js", "app.js"),
            ("webpack:///./src/cart/total.ts?a1b2", "total.ts"),
        ] {
            assert_eq!(name(path, Family::JavaScript), expected, "{path}");
        }
        assert_eq!(name("/app/Migrations/m.20240101.py", Family::Python), "m.20240101.py");
    }

    #[test]
    fn generated_classes_are_one() {
        for (class, expected) in [
            ("com.e.Foo$$Lambda$14/0x00000008", "com.e.Foo"),
            ("com.e.Foo$$EnhancerBySpringCGLIB$$1a2b3c", "com.e.Foo"),
            ("com.sun.proxy.$Proxy12", "com.sun.proxy.$Proxy"),
            (
                "jdk.internal.reflect.GeneratedMethodAccessor7",
                "jdk.internal.reflect.GeneratedMethodAccessor",
            ),
            ("com.e.Foo$1", "com.e.Foo$1"),
        ] {
            assert_eq!(module(class, Family::Java), expected, "{class}");
        }
    }
}
