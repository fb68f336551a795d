//! The shapes of secrets: a literal with which each begins or is announced, and a precise look at
//! what follows. Each look is bounded, so that a stream knows how much it has to hold.

use crate::{
    context,
    kind::{Kind, mark_before},
    tail::{Class, Tail},
};

/// What a look at one place says.
#[derive(Debug)]
pub(crate) enum Verdict {
    No,
    /// It depends on text that has not come yet.
    More,
    /// A secret of known extent.
    Exact {
        start: usize,
        end: usize,
        kind: Kind,
    },
    /// A secret from here as far as the tail reaches, which begins at `body`.
    From {
        start: usize,
        body: usize,
        kind: Kind,
        tail: Tail,
    },
}

/// The text around an anchor.
pub(crate) struct Place<'a> {
    pub(crate) text: &'a [u8],
    /// Where the anchor begins and ends.
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) end_of_text: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Token(&'static Token),
    Aws,
    Jwt,
    Pem,
    Authorization,
    Bearer,
    Url,
    /// `name=value` or `"name": "value"`; the flag: only after `?` or `&`.
    Parameter {
        separated: bool,
    },
}

/// A prefix and a run of characters.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) prefix: &'static str,
    kind: Kind,
    class: Class,
    least: usize,
    look: Look,
    /// A word must not go on into the prefix: `task-force` is no key.
    alone: bool,
}

/// What else the run must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Any,
    Digit,
    /// A stretch of letters and digits without a dash, with a digit: `sk-learn-0.24` has none.
    Stretch,
}

/// So much of a run decides whether it is a secret.
const DECIDES: usize = 64;
const STRETCH: usize = 16;
const LONGEST_JWT_HEAD: usize = 1024;

const fn token(prefix: &'static str, kind: Kind, class: Class, least: usize) -> Token {
    Token { prefix, kind, class, least, look: Look::Any, alone: false }
}

const fn digit(prefix: &'static str, kind: Kind, class: Class, least: usize) -> Token {
    Token { prefix, kind, class, least, look: Look::Digit, alone: true }
}

pub(crate) const TOKENS: &[Token] = &[
    token("loom_pat_", Kind::LoomToken, Class::Alphanumeric, 12),
    token("loom_svc_", Kind::LoomToken, Class::Alphanumeric, 12),
    token("loom_wvr_", Kind::LoomToken, Class::Alphanumeric, 12),
    token("loom_cli_", Kind::LoomToken, Class::Alphanumeric, 12),
    token("ghp_", Kind::GithubToken, Class::Url, 20),
    token("gho_", Kind::GithubToken, Class::Url, 20),
    token("ghu_", Kind::GithubToken, Class::Url, 20),
    token("ghs_", Kind::GithubToken, Class::Dotted, 20),
    token("ghr_", Kind::GithubToken, Class::Url, 20),
    token("github_pat_", Kind::GithubToken, Class::Url, 20),
    token("sk-ant-", Kind::AnthropicKey, Class::Url, 12),
    digit("sk-proj-", Kind::OpenaiKey, Class::Url, 20),
    digit("sk-svcacct-", Kind::OpenaiKey, Class::Url, 20),
    digit("sk-admin-", Kind::OpenaiKey, Class::Url, 20),
    Token {
        prefix: "sk-",
        kind: Kind::OpenaiKey,
        class: Class::Url,
        least: 20,
        look: Look::Stretch,
        alone: true,
    },
    token("xoxa-", Kind::SlackToken, Class::Url, 10),
    token("xoxb-", Kind::SlackToken, Class::Url, 10),
    token("xoxp-", Kind::SlackToken, Class::Url, 10),
    token("xoxr-", Kind::SlackToken, Class::Url, 10),
    token("xoxs-", Kind::SlackToken, Class::Url, 10),
    digit("AIza", Kind::GoogleKey, Class::Url, 35),
    token("glpat-", Kind::GitlabToken, Class::Dotted, 16),
    digit("npm_", Kind::NpmToken, Class::Alphanumeric, 30),
    token("sk_live_", Kind::StripeKey, Class::Alphanumeric, 12),
    token("rk_live_", Kind::StripeKey, Class::Alphanumeric, 12),
    token("sk_test_", Kind::StripeKey, Class::Alphanumeric, 12),
    digit("hf_", Kind::HuggingfaceToken, Class::Alphanumeric, 30),
];

impl Shape {
    pub(crate) fn look(self, place: &Place<'_>) -> Verdict {
        match self {
            Self::Token(token) => token.look(place),
            Self::Aws => aws(place),
            Self::Jwt => jwt(place),
            Self::Pem => pem(place),
            Self::Authorization => context::authorization(place),
            Self::Bearer => context::bearer(place),
            Self::Url => context::url(place),
            Self::Parameter { separated } => context::parameter(place, separated),
        }
    }
}

impl Token {
    fn look(&self, place: &Place<'_>) -> Verdict {
        if !place.anchor_is(self.prefix) || (self.alone && !place.begins_a_word()) {
            return Verdict::No;
        }
        let run = place.run(place.end, self.class, DECIDES);
        let enough = run.len() >= self.least
            && match self.look {
                Look::Any => true,
                Look::Digit => run.iter().any(u8::is_ascii_digit),
                Look::Stretch => run.split(|byte| !byte.is_ascii_alphanumeric()).any(|stretch| {
                    stretch.len() >= STRETCH && stretch.iter().any(u8::is_ascii_digit)
                }),
            };
        if enough {
            Verdict::From {
                start: place.start,
                body: place.end,
                kind: self.kind,
                tail: Tail::Run(self.class),
            }
        } else {
            place.no_unless_more(place.end + run.len(), run.len() < DECIDES)
        }
    }
}

fn aws(place: &Place<'_>) -> Verdict {
    const LENGTH: usize = 16;
    if !(place.anchor_is("AKIA") || place.anchor_is("ASIA")) || !place.begins_a_word() {
        return Verdict::No;
    }
    let end = place.end + LENGTH;
    let id = place.run(place.end, Class::Alphanumeric, LENGTH);
    if id.iter().any(u8::is_ascii_lowercase) {
        return Verdict::No;
    }
    if id.len() < LENGTH {
        return place.no_unless_more(place.end + id.len(), true);
    }
    match place.byte(end) {
        None if !place.end_of_text => Verdict::More,
        Some(byte) if byte.is_ascii_alphanumeric() => Verdict::No,
        // What stood here was part of a longer word before it was masked.
        Some(b'[') if crate::kind::may_become_mark(place.text, end) && !place.end_of_text => {
            Verdict::More
        }
        Some(b'[') if crate::kind::mark_at(place.text, end).is_some() => Verdict::No,
        _ => Verdict::Exact { start: place.start, end, kind: Kind::AwsKey },
    }
}

fn jwt(place: &Place<'_>) -> Verdict {
    const PAYLOAD: &[u8] = b".eyJ";
    const LEAST: usize = 8;
    if !place.anchor_is("eyJ") || !place.begins_a_word() {
        return Verdict::No;
    }
    let head = place.run(place.end, Class::Url, LONGEST_JWT_HEAD);
    let dot = place.end + head.len();
    if head.len() < LEAST || head.len() == LONGEST_JWT_HEAD {
        return place.no_unless_more(dot, head.len() < LEAST);
    }
    let after = place.text.get(dot..).unwrap_or_default();
    if after.starts_with(PAYLOAD) {
        let tail = Tail::Run(Class::Dotted);
        Verdict::From { start: place.start, body: place.end, kind: Kind::Jwt, tail }
    } else {
        place.no_unless_more(dot + after.len(), PAYLOAD.starts_with(after))
    }
}

fn pem(place: &Place<'_>) -> Verdict {
    const LONGEST_LABEL: usize = 64;
    let after = place.text.get(place.end..).unwrap_or_default();
    let after = after.get(..LONGEST_LABEL).unwrap_or(after);
    let label = after
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'+' | b'%')))
        .unwrap_or(after.len());
    // In a URL there is a `+` or `%20` between the words.
    let has =
        |word: &[u8]| memchr::memmem::find(after.get(..label).unwrap_or_default(), word).is_some();
    if has(b"PRIVATE") && has(b"KEY") {
        Verdict::From {
            start: place.start,
            body: place.end,
            kind: Kind::PrivateKey,
            tail: Tail::Pem,
        }
    } else {
        place.no_unless_more(place.end + label, label < LONGEST_LABEL)
    }
}

impl<'a> Place<'a> {
    pub(crate) fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    /// Anchors are found without regard to case.
    fn anchor_is(&self, literal: &str) -> bool {
        self.text.get(self.start..self.end) == Some(literal.as_bytes())
    }

    pub(crate) fn run(&self, from: usize, class: Class, most: usize) -> &'a [u8] {
        let rest = self.text.get(from..).unwrap_or_default();
        let length = rest.iter().take(most).take_while(|byte| class.contains(**byte)).count();
        rest.get(..length).unwrap_or_default()
    }

    /// No; but when what was looked at ended with the text, and there will be more: that decides.
    pub(crate) fn no_unless_more(&self, looked_to: usize, more_would_decide: bool) -> Verdict {
        if more_would_decide && !self.end_of_text && looked_to >= self.text.len() {
            Verdict::More
        } else {
            Verdict::No
        }
    }

    /// Is there no word that goes on into the anchor? An escape before it (`\n`, `%20`, `\u0026`) is
    /// none; a mark may have been one.
    pub(crate) fn begins_a_word(&self) -> bool {
        let before = self.text.get(..self.start).unwrap_or_default();
        let Some(last) = before.last() else { return true };
        if *last == b']' {
            return !mark_before(self.text, self.start);
        }
        if !last.is_ascii_alphanumeric() {
            return true;
        }
        let back = |by: usize| before.len().checked_sub(by).and_then(|at| before.get(at)).copied();
        let hex = |from: usize| {
            (1..=from).all(|by| back(by).is_some_and(|byte| byte.is_ascii_hexdigit()))
        };
        (matches!(last, b'n' | b'r' | b't' | b'b' | b'f') && back(2) == Some(b'\\'))
            || (hex(2) && back(3) == Some(b'%'))
            || (hex(4) && back(5) == Some(b'u') && back(6) == Some(b'\\'))
    }
}
