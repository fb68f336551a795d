//! Secrets that are known by what stands before them: a header, a URL, the name of a parameter.

use crate::{
    kind::{Kind, mark_at, may_become_mark},
    shape::{Place, Verdict},
    tail::{Class, Tail},
};

const LONGEST_USER: usize = 256;
const LONGEST_PASSWORD: usize = 1024;
const MOST_BETWEEN: usize = 12;
const LEAST_BEARER: usize = 16;
const DECIDES: usize = 64;

/// Names of which the value is a secret wherever they end with it: `db_password=`.
pub(crate) const NAMES: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "secret_key",
    "secret-key",
    "secretkey",
    "api_key",
    "api-key",
    "apikey",
    "access_key",
    "access-key",
    "accesskey",
    "private_key",
    "private-key",
    "privatekey",
    "access_token",
    "accesstoken",
    "refresh_token",
    "refreshtoken",
    "id_token",
    "idtoken",
    "auth_token",
    "authtoken",
    "_token",
    "-token",
    "-signature",
    "-credential",
];

/// Names that are ordinary words: only in the query of a URL.
pub(crate) const SEPARATED_NAMES: &[&str] =
    &["token", "key", "sig", "signature", "code", "otp", "state", "pwd"];

const SCHEMES: [&[u8]; 7] =
    [b"bearer", b"basic", b"token", b"apikey", b"api-key", b"negotiate", b"digest"];

/// `Authorization: Bearer …`, in a header, in JSON, as Rust prints it.
pub(crate) fn authorization(place: &Place<'_>) -> Verdict {
    let rest = place.text.get(place.end..).unwrap_or_default();
    let between = rest
        .iter()
        .take(MOST_BETWEEN)
        .take_while(|byte| {
            matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b':' | b'=' | b',' | b'\\' | b'(' | b'[')
        })
        .count();
    let from = place.end + between;
    if between == 0 || between == MOST_BETWEEN || from >= place.text.len() {
        return place.no_unless_more(from, between < MOST_BETWEEN);
    }
    // The bracket of a mark would count as one between.
    if let Some(verdict) = masked_already(place, from.saturating_sub(1)) {
        return verdict;
    }
    let word = place.run(from, Class::Token68, DECIDES);
    let after = from + word.len();
    if SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme)) {
        return match place.byte(after) {
            None => place.no_unless_more(after, true),
            Some(b' ') => credentials(place, after + 1, 4),
            Some(_) => Verdict::No,
        };
    }
    if word.len() >= LEAST_BEARER && word.iter().any(u8::is_ascii_digit) {
        return token68(from);
    }
    place.no_unless_more(after, word.len() < DECIDES)
}

/// `Bearer …` without a header before it.
pub(crate) fn bearer(place: &Place<'_>) -> Verdict {
    if !place.begins_a_word() {
        return Verdict::No;
    }
    match place.byte(place.end) {
        None => place.no_unless_more(place.end, true),
        Some(b' ' | b'+') => credentials(place, place.end + 1, LEAST_BEARER),
        Some(b'%') => match place.text.get(place.end..place.end + 3) {
            None => place.no_unless_more(place.text.len(), true),
            Some(b"%20") => credentials(place, place.end + 3, LEAST_BEARER),
            Some(_) => Verdict::No,
        },
        Some(_) => Verdict::No,
    }
}

fn credentials(place: &Place<'_>, from: usize, least: usize) -> Verdict {
    let run = place.run(from, Class::Token68, DECIDES);
    if run.len() >= least && (least < LEAST_BEARER || run.iter().any(u8::is_ascii_digit)) {
        return token68(from);
    }
    place.no_unless_more(from + run.len(), run.len() < DECIDES)
}

fn token68(start: usize) -> Verdict {
    Verdict::From { start, body: start, kind: Kind::Authorization, tail: Tail::Run(Class::Token68) }
}

/// `scheme://user:password@`. A password may hold a bare `/`: it is none if it could be a port.
pub(crate) fn url(place: &Place<'_>) -> Verdict {
    let scheme = place.start.checked_sub(1).and_then(|before| place.byte(before));
    if !scheme.is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        return Verdict::No;
    }
    let most = place.end + LONGEST_USER;
    let mut at = place.end;
    loop {
        match place.byte(at) {
            None => return place.no_unless_more(at, true),
            Some(b':') => break,
            Some(byte) if at >= most || ends_user(byte) => return Verdict::No,
            Some(_) => at += 1,
        }
    }
    let start = at + 1;
    let most = start + LONGEST_PASSWORD;
    let (mut port, mut last) = (true, None);
    at = start;
    let complete = loop {
        match place.byte(at) {
            _ if at >= most => break true,
            None => break place.end_of_text,
            Some(b'[') if mark_at(place.text, at).is_some() => return Verdict::No,
            Some(b'[') if !place.end_of_text && may_become_mark(place.text, at) => {
                return Verdict::More;
            }
            Some(b'@') => last = Some(at),
            Some(b'/' | b'?' | b'#') if port || last.is_some() => break true,
            Some(byte)
                if byte <= b' ' || matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\') =>
            {
                break true;
            }
            Some(byte) => port &= byte.is_ascii_digit(),
        }
        at += 1;
    };
    match last {
        _ if !complete => Verdict::More,
        Some(end) if end > start => Verdict::Exact { start, end, kind: Kind::UrlPassword },
        _ => Verdict::No,
    }
}

fn ends_user(byte: u8) -> bool {
    byte <= b' '
        || matches!(
            byte,
            b'/' | b'?' | b'#' | b'@' | b'[' | b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\'
        )
}

/// The value after a telling name: `name=value`, `name="value"`, `"name": "value"`.
pub(crate) fn parameter(place: &Place<'_>, separated: bool) -> Verdict {
    const EQUALS: [&[u8]; 3] = [b"=", b"%3d", b"\\u003d"];
    let rest = place.text.get(place.end..).unwrap_or_default();
    for equals in EQUALS {
        let length = equals.len().min(rest.len());
        let matches = rest.get(..length).is_some_and(|rest| {
            rest.eq_ignore_ascii_case(equals.get(..length).unwrap_or_default())
        });
        if matches && length < equals.len() && !place.end_of_text {
            return Verdict::More;
        }
        if matches && length == equals.len() {
            if separated && !after_separator(place) {
                return Verdict::No;
            }
            return value(place, place.end + length, false);
        }
    }
    // `"token": "…"`, as other plain names are too common.
    let plain = separated
        && !place
            .text
            .get(place.start..place.end)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"token"));
    if plain {
        return Verdict::No;
    }
    if separated
        && !matches!(place.start.checked_sub(1).and_then(|at| place.byte(at)), Some(b'"' | b'\''))
    {
        return Verdict::No;
    }
    quoted_key(place)
}

fn quoted_key(place: &Place<'_>) -> Verdict {
    let mut at = place.end;
    let most = place.end + MOST_BETWEEN;
    let skip = |at: &mut usize, byte: u8| {
        while *at < most && place.byte(*at) == Some(byte) {
            *at += 1;
        }
    };
    skip(&mut at, b'\\');
    match place.byte(at) {
        None => return place.no_unless_more(at, true),
        Some(b'"' | b'\'') => at += 1,
        Some(_) => return Verdict::No,
    }
    skip(&mut at, b' ');
    match place.byte(at) {
        None => return place.no_unless_more(at, true),
        Some(b':') => at += 1,
        Some(_) => return Verdict::No,
    }
    skip(&mut at, b' ');
    value(place, at, true)
}

fn value(place: &Place<'_>, from: usize, only_quoted: bool) -> Verdict {
    let mut at = from;
    while at < from + MOST_BETWEEN && place.byte(at) == Some(b'\\') {
        at += 1;
    }
    let (start, tail) = match place.byte(at) {
        None => return place.no_unless_more(at, true),
        Some(quote @ (b'"' | b'\'')) => (at + 1, Tail::Quoted { quote, slashes: at - from }),
        Some(_) if only_quoted || at > from => return Verdict::No,
        Some(byte) if !Class::Value.contains(byte) => return Verdict::No,
        Some(_) => (at, Tail::Run(Class::Value)),
    };
    masked_already(place, start).unwrap_or(Verdict::From {
        start,
        body: start,
        kind: Kind::Parameter,
        tail,
    })
}

/// What begins with a mark was masked before.
fn masked_already(place: &Place<'_>, at: usize) -> Option<Verdict> {
    if mark_at(place.text, at).is_some() {
        return Some(Verdict::No);
    }
    (!place.end_of_text && may_become_mark(place.text, at)).then_some(Verdict::More)
}

fn after_separator(place: &Place<'_>) -> bool {
    let before = place.text.get(..place.start).unwrap_or_default();
    let ends = |with: &[u8]| {
        before
            .len()
            .checked_sub(with.len())
            .and_then(|at| before.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(with))
    };
    [b"?".as_slice(), b"&", b";", b"%3f", b"%26", b"\\u0026"].into_iter().any(ends)
}
