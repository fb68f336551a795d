//! Names of functions without what compilers and run times put into them.

use super::family::Family;

/// None when it says nothing: it is missing, or a word for that.
pub(super) fn key(function: &str, family: Family) -> Option<String> {
    let function = function.trim();
    let name = match family {
        Family::JavaScript => javascript(function),
        Family::Python => python(function),
        Family::Ruby => ruby(function),
        Family::Php => php(function),
        Family::Java => java(function),
        Family::Go => go(function),
        Family::DotNet => dotnet(function),
        Family::Native => native(function),
        Family::Other => function.to_owned(),
    };
    let name = name.trim();
    let nothing = [
        "",
        "?",
        "??",
        "<anonymous>",
        "anonymous",
        "(anonymous)",
        "<unknown>",
        "unknown",
        "<redacted>",
        "eval",
    ];
    (!nothing.contains(&name)).then(|| name.to_owned())
}

/// Of the receiver, `async`, `new`, `bound` and other names of the same function nothing stays.
fn javascript(function: &str) -> String {
    let mut name = function;
    if let Some((before, _)) = name.split_once(" [as ") {
        name = before;
    }
    // As Firefox marks calls of an async function, and functions within functions.
    name = name.strip_prefix("async*").unwrap_or(name);
    loop {
        let stripped = ["async ", "new ", "bound ", "get ", "set ", "global code"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix));
        match stripped {
            Some(rest) => name = rest,
            None => break,
        }
    }
    name = name.trim_end_matches(['<', '/']);
    let name = name.rsplit(['.', '/']).next().unwrap_or(name);
    name.trim_start_matches('#').to_owned()
}

/// As in Python 3.11 and later, with the class before it, or not.
fn python(function: &str) -> String {
    function.rsplit('.').next().unwrap_or(function).to_owned()
}

/// `block (2 levels) in Foo#bar` is `bar`.
fn ruby(function: &str) -> String {
    let name = function.rsplit_once(" in ").map_or(function, |(_, name)| name);
    name.rsplit(['#', '.']).next().unwrap_or(name).to_owned()
}

/// `{closure:/app/a.php:12}` is `{closure}`; the place of an anonymous class is in its name.
fn php(function: &str) -> String {
    let name = match function.split_once("{closure") {
        Some((before, rest)) => {
            let after = rest.split_once('}').map_or("", |(_, after)| after);
            format!("{before}{{closure}}{after}")
        }
        None => function.to_owned(),
    };
    match name.split_once("class@anonymous") {
        Some((before, rest)) => {
            let method = rest.rsplit_once("::").map_or("", |(_, method)| method);
            format!("{before}class@anonymous::{method}")
        }
        None => name,
    }
}

/// `lambda$pay$3` is `lambda$pay`.
fn java(function: &str) -> String {
    let name = super::file::java(function);
    if name.starts_with("lambda$") || name.starts_with("access$") {
        let end = name.trim_end_matches(|c: char| c.is_ascii_digit());
        return end.trim_end_matches('$').to_owned();
    }
    name
}

/// `(*Server).Handle.func1.2` is `(*Server).Handle.func`; `Map[…]` is `Map`.
fn go(function: &str) -> String {
    let plain = without(function, '[', ']');
    let mut parts: Vec<&str> = plain.split('.').collect();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    while parts.len() > 1 && parts.last().is_some_and(|part| number(part)) {
        parts.pop();
    }
    let mut out = String::with_capacity(plain.len());
    for part in parts {
        let numbered = ["func", "gowrap", "deferwrap"]
            .into_iter()
            .find(|word| part.strip_prefix(word).is_some_and(number));
        // A function in a function in a function is one in a function.
        if numbered.is_some_and(|word| out.ends_with(word)) {
            continue;
        }
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(numbered.unwrap_or(part));
    }
    out
}

/// `<Pay>d__12.MoveNext` is `Pay`, `<Run>b__0` is `Run lambda`, `` List`1 `` is `List`.
fn dotnet(function: &str) -> String {
    let name = function.split(['(', '[']).next().unwrap_or(function);
    if let Some((before, rest)) = name.split_once('<')
        && let Some((inner, after)) = rest.split_once('>')
    {
        let outer = before.rsplit(['.', '+', '/']).next().unwrap_or_default();
        if inner.is_empty() {
            // Of a class that holds the variables of a lambda: what follows names it.
            return after
                .split_once('.')
                .map_or_else(|| outer.to_owned(), |(_, rest)| dotnet(rest));
        }
        return match after.chars().next() {
            Some('d') => inner.to_owned(),
            Some('b' | 'g') => format!("{inner} lambda"),
            _ => format!("{outer}{inner}"),
        };
    }
    let name = name.split('`').next().unwrap_or(name);
    name.strip_prefix("lambda_method").map_or(name, |_| "lambda_method").to_owned()
}

/// C, C++, Rust, Swift, Objective-C: without types and arguments.
fn native(function: &str) -> String {
    if function.starts_with(['-', '+']) && function.ends_with(']') {
        return function.to_owned();
    }
    let mut name = without_rust_hash(function).replace("(anonymous namespace)", "anonymous");
    for (from, to) in [
        ("specialized ", ""),
        ("@objc ", ""),
        ("partial apply for ", ""),
        ("merged ", ""),
        ("'lambda'", "lambda"),
    ] {
        name = name.replace(from, to);
    }
    if let Some(inner) = swift_closure(&name) {
        return native(inner);
    }
    let name = qualified(&name);
    let name = arguments(&name);
    let name = without(&name, '<', '>');
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split("::").map(str::trim) {
        // What is generated within a function counts as the function.
        let generated =
            part.starts_with('{') || part.starts_with("$_") || part.starts_with("lambda");
        if !generated && !part.is_empty() {
            parts.push(part);
        }
    }
    let name = parts.join("::");
    // A type before it: `void app::pay`.
    match name.rsplit_once(' ') {
        Some((before, last)) if !before.ends_with("operator") && !name.contains("operator") => {
            last.trim_start_matches(['*', '&']).to_owned()
        }
        _ => name,
    }
}

fn swift_closure(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("closure #")?;
    rest.split_once(" in ").map(|(_, function)| function)
}

/// `app::pay::h0123456789abcdef` is `app::pay`.
pub(super) fn without_rust_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((before, hash))
            if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            before
        }
        _ => name,
    }
}

/// `<app::Cart as core::Trait>::total` is `app::Cart::total`.
fn qualified(name: &str) -> String {
    let Some(rest) = name.strip_prefix('<').or_else(|| name.strip_prefix("_<")) else {
        return name.to_owned();
    };
    let mut depth = 1_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if !rest.get(..at).is_some_and(|before| before.ends_with('-')) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let inner = rest.get(..at).unwrap_or_default();
            let kind = inner.split(" as ").next().unwrap_or(inner);
            let kind = kind.trim_start_matches(['&', '*']).trim_start_matches("mut ");
            let after = rest.get(at + 1..).unwrap_or_default();
            return qualified(&format!("{kind}{after}"));
        }
    }
    name.to_owned()
}

/// Without what is called with, and `const` behind it.
fn arguments(name: &str) -> String {
    let (head, rest) = match name.split_once("operator()") {
        Some((before, rest)) => (format!("{before}operator()"), rest.to_owned()),
        None => (String::new(), name.to_owned()),
    };
    if head.is_empty() {
        return without(&rest, '(', ')').trim_end_matches(" const").to_owned();
    }
    without(head.trim_end_matches("operator()"), '(', ')') + "operator()"
}

/// Without all between brackets, as far as they are closed.
fn without(name: &str, open: char, close: char) -> String {
    if !name.contains(open) {
        return name.to_owned();
    }
    // Operators have brackets of their own.
    if open == '<'
        && (name.contains("operator<") || name.contains("operator>") || name.contains("operator->"))
    {
        return name.to_owned();
    }
    let mut out = String::with_capacity(name.len());
    let mut depth = 0_usize;
    let mut before = ' ';
    for c in name.chars() {
        if c == open {
            depth += 1;
        } else if c == close && !(close == '>' && before == '-') {
            depth = depth.saturating_sub(1);
        } else if depth == 0 {
            out.push(c);
        }
        before = c;
    }
    // All of it was in brackets: `<lambda>`.
    if depth > 0 || out.trim().is_empty() { name.to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        use Family::{DotNet, Go, Java, JavaScript, Native, Php, Python, Ruby};
        for (family, function, expected) in [
            (JavaScript, "Cart.total", "total"),
            (JavaScript, "async Cart.total", "total"),
            (JavaScript, "new Cart", "Cart"),
            (JavaScript, "Object.total [as onClick]", "total"),
            (JavaScript, "async*total", "total"),
            (JavaScript, "total/<", "total"),
            (Python, "Cart.total", "total"),
            (Python, "main.<locals>.inner", "inner"),
            (Python, "<lambda>", "<lambda>"),
            (Ruby, "block (2 levels) in Cart#total", "total"),
            (Ruby, "rescue in total", "total"),
            (Php, "App\\Cart::{closure:/app/a.php:12}", "App\\Cart::{closure}"),
            (Java, "lambda$pay$3", "lambda$pay"),
            (Java, "invoke", "invoke"),
            (Go, "(*Server).Handle.func1.2", "(*Server).Handle.func"),
            (Go, "Map[go.shape.int]", "Map"),
            (DotNet, "<Pay>d__12.MoveNext", "Pay"),
            (DotNet, "<>c__DisplayClass5_0.<Run>b__0", "Run lambda"),
            (DotNet, "Parse[T](String s)", "Parse"),
            (Native, "app::pay::h0123456789abcdef", "app::pay"),
            (Native, "<app::Cart<T> as core::ops::Drop>::drop", "app::Cart::drop"),
            (Native, "app::run::{{closure}}::h0123456789abcdef", "app::run"),
            (Native, "app::run::{closure#0}", "app::run"),
            (Native, "core::result::Result<T,E>::unwrap", "core::result::Result::unwrap"),
            (Native, "alloc::vec::Vec<alloc::string::String>::push", "alloc::vec::Vec::push"),
            (Native, "void app::pay<int>(int, std::vector<int>&) const", "app::pay"),
            (Native, "(anonymous namespace)::go(int)", "anonymous::go"),
            (Native, "app::run()::$_0::operator()(int) const", "app::run::operator()"),
            (Native, "operator new(unsigned long)", "operator new"),
            (Native, "-[Cart total:]", "-[Cart total:]"),
            (Native, "closure #1 in Cart.total(_:)", "Cart.total"),
            (Native, "specialized Cart.add<A>(x:)", "Cart.add"),
        ] {
            assert_eq!(key(function, family).as_deref(), Some(expected), "{function}");
        }
        for function in ["", "?", "<anonymous>", "Object.<anonymous>", "eval"] {
            assert_eq!(key(function, JavaScript), None, "{function}");
        }
    }
}
