//! Rules of a project: which events are one whatever their stacks say, and which frames count.

use loom_core::error::FieldError;
use serde_json::{Map, Value};

use super::fingerprint::{self, Variable};
use crate::event::{Event, Frame};

const MOST_RULES: usize = 200;
const MOST_PATTERNS: usize = 20;
const LONGEST_PATTERN: usize = 500;
const MOST_PARTS: usize = 10;
const LONGEST_PART: usize = 200;
/// Longer texts are compared as far.
const LONGEST_TEXT: usize = 1_000;

/// Rules of a project; for each thing that a rule may say the first that matches counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Clone, Debug, Default)]
struct Rule {
    event: Vec<(EventField, Patterns)>,
    frame: Vec<(FrameField, Patterns)>,
    fingerprint: Option<Vec<String>>,
    title: Option<String>,
    in_app: Option<bool>,
    counts: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
enum EventField {
    ExceptionType,
    Message,
    Platform,
    Level,
    Logger,
    Transaction,
}

#[derive(Clone, Copy, Debug)]
enum FrameField {
    Module,
    Function,
    Path,
    Package,
}

/// Any of these; those with `!` before them: none of these.
#[derive(Clone, Debug)]
struct Patterns {
    any: Vec<String>,
    none: Vec<String>,
}

/// What rules say about a frame, and which.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    pub(super) in_app: Option<(bool, usize)>,
    pub(super) counts: Option<(bool, usize)>,
}

impl Rules {
    /// `[{"match": {…}, "fingerprint"?, "title"?, "in_app"?, "group"?}]`; all that is wrong, by path.
    pub(crate) fn parse(value: &Value) -> Result<Self, Vec<FieldError>> {
        let Some(list) = value.as_array() else {
            return Err(vec![error("", "must be a list of rules")]);
        };
        let mut errors = Vec::new();
        if list.len() > MOST_RULES {
            errors.push(error(
                "",
                &format!("has {} rules; at most {MOST_RULES} are allowed", list.len()),
            ));
        }
        let rules = list
            .iter()
            .take(MOST_RULES)
            .enumerate()
            .map(|(at, rule)| Rule::parse(rule, at, &mut errors))
            .collect();
        if errors.is_empty() { Ok(Self(rules)) } else { Err(errors) }
    }

    /// The fingerprint that the first rule with one gives, and which rule (from 1).
    pub(super) fn fingerprint(&self, event: &Event) -> Option<(usize, &[String])> {
        self.first(event, |rule| rule.fingerprint.as_deref())
    }

    pub(super) fn title(&self, event: &Event) -> Option<&str> {
        self.first(event, |rule| rule.title.as_deref()).map(|(_, title)| title)
    }

    fn first<'a, T: ?Sized>(
        &'a self,
        event: &Event,
        of: impl Fn(&'a Rule) -> Option<&'a T>,
    ) -> Option<(usize, &'a T)> {
        self.0.iter().enumerate().find_map(|(at, rule)| {
            let said = of(rule)?;
            rule.matches(event).then_some((at + 1, said))
        })
    }

    /// What the rules say of each frame of an event.
    pub(super) fn of_frames<'a>(&'a self, event: &'a Event) -> impl Fn(&Frame) -> Said + 'a {
        let rules: Vec<_> = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.in_app.is_some() || rule.counts.is_some())
            .filter(|(_, rule)| rule.event_matches(event))
            .collect();
        move |frame| {
            let mut said = Said::default();
            for (at, rule) in &rules {
                if rule.frame_matches(frame) {
                    said.in_app = said.in_app.or(rule.in_app.map(|in_app| (in_app, at + 1)));
                    said.counts = said.counts.or(rule.counts.map(|counts| (counts, at + 1)));
                }
            }
            said
        }
    }
}

impl Rule {
    fn parse(value: &Value, at: usize, errors: &mut Vec<FieldError>) -> Self {
        let mut rule = Self::default();
        let path = |name: &str| format!("[{at}]{}{name}", if name.is_empty() { "" } else { "." });
        let Some(of) = value.as_object() else {
            errors
                .push(error(&path(""), "must be an object with `match` and what follows from it"));
            return rule;
        };
        match of.get("match") {
            Some(Value::Object(fields)) if !fields.is_empty() => {
                rule.matchers(fields, &path("match"), errors);
            }
            _ => errors.push(error(&path("match"), "must be an object with one matcher at least")),
        }
        for (name, value) in of {
            match name.as_str() {
                "match" => {}
                "fingerprint" => rule.fingerprint = parts(value, &path(name), errors),
                "title" => match value.as_str() {
                    Some(title) if !title.trim().is_empty() && title.len() <= LONGEST_PART => {
                        check_variables(title, &path(name), errors);
                        rule.title = Some(title.to_owned());
                    }
                    _ => errors.push(error(
                        &path(name),
                        &format!("must be a text of 1 to {LONGEST_PART} characters"),
                    )),
                },
                "in_app" => match value.as_bool() {
                    Some(in_app) => rule.in_app = Some(in_app),
                    None => errors.push(error(&path(name), "must be true or false")),
                },
                "group" => match value.as_str() {
                    Some("on") => rule.counts = Some(true),
                    Some("off") => rule.counts = Some(false),
                    _ => errors.push(error(&path(name), "must be `on` or `off`")),
                },
                // What it is for, in the words of who wrote it.
                "comment" if value.as_str().is_some_and(|text| text.len() <= LONGEST_PATTERN) => {}
                _ => errors.push(error(
                    &path(name),
                    "is not known; a rule has `match`, `fingerprint`, `title`, `in_app`, `group` and `comment`",
                )),
            }
        }
        if !["fingerprint", "title", "in_app", "group"].iter().any(|name| of.contains_key(*name)) {
            errors.push(error(
                &path(""),
                "says nothing: it needs `fingerprint`, `title`, `in_app` or `group`",
            ));
        }
        rule
    }

    fn matchers(&mut self, fields: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            let event = match name.as_str() {
                "exception_type" => Some(EventField::ExceptionType),
                "message" => Some(EventField::Message),
                "platform" => Some(EventField::Platform),
                "level" => Some(EventField::Level),
                "logger" => Some(EventField::Logger),
                "transaction" => Some(EventField::Transaction),
                _ => None,
            };
            let frame = match name.as_str() {
                "module" => Some(FrameField::Module),
                "function" => Some(FrameField::Function),
                "path" => Some(FrameField::Path),
                "package" => Some(FrameField::Package),
                _ => None,
            };
            if event.is_none() && frame.is_none() {
                errors.push(error(
                    &path,
                    "is not known; there are `exception_type`, `message`, `platform`, `level`, `logger`, \
                     `transaction`, `module`, `function`, `path` and `package`",
                ));
                continue;
            }
            let Some(patterns) = Patterns::parse(value, &path, errors) else { continue };
            self.event.extend(event.map(|field| (field, patterns.clone())));
            self.frame.extend(frame.map(|field| (field, patterns)));
        }
    }

    fn matches(&self, event: &Event) -> bool {
        self.event_matches(event)
            && (self.frame.is_empty() || frames(event).any(|frame| self.frame_matches(frame)))
    }

    fn event_matches(&self, event: &Event) -> bool {
        self.event.iter().all(|(field, patterns)| match field {
            EventField::ExceptionType => {
                patterns.match_any(event.exceptions.iter().filter_map(|one| one.kind.as_deref()))
            }
            EventField::Message => patterns.match_any(
                event
                    .exceptions
                    .iter()
                    .filter_map(|one| one.value.as_deref())
                    .chain(event.message.iter().map(|message| message.formatted.as_str())),
            ),
            EventField::Platform => patterns.match_any(event.platform.as_deref().into_iter()),
            EventField::Level => patterns.match_any([event.level.as_str()].into_iter()),
            EventField::Logger => patterns.match_any(event.logger.as_deref().into_iter()),
            EventField::Transaction => patterns.match_any(event.transaction.as_deref().into_iter()),
        })
    }

    fn frame_matches(&self, frame: &Frame) -> bool {
        self.frame.iter().all(|(field, patterns)| match field {
            FrameField::Module => patterns.match_any(frame.module.as_deref().into_iter()),
            FrameField::Function => patterns.match_any(frame.function.as_deref().into_iter()),
            FrameField::Path => patterns.match_any(
                [frame.abs_path.as_deref(), frame.filename.as_deref()].into_iter().flatten(),
            ),
            FrameField::Package => patterns.match_any(frame.package.as_deref().into_iter()),
        })
    }
}

fn frames(event: &Event) -> impl Iterator<Item = &Frame> {
    let of_threads = event.threads.iter().filter(|_| event.exceptions.is_empty());
    event
        .exceptions
        .iter()
        .flat_map(|exception| &exception.frames)
        .chain(of_threads.flat_map(|thread| &thread.frames))
}

fn parts(value: &Value, path: &str, errors: &mut Vec<FieldError>) -> Option<Vec<String>> {
    let list = value.as_array().filter(|list| (1..=MOST_PARTS).contains(&list.len()));
    let Some(list) = list else {
        errors.push(error(path, &format!("must be a list of 1 to {MOST_PARTS} texts")));
        return None;
    };
    let mut parts = Vec::new();
    for (at, part) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        match part.as_str() {
            Some(text) if !text.is_empty() && text.len() <= LONGEST_PART => {
                check_variables(text, &path, errors);
                parts.push(text.to_owned());
            }
            _ => errors
                .push(error(&path, &format!("must be a text of 1 to {LONGEST_PART} characters"))),
        }
    }
    Some(parts)
}

fn check_variables(text: &str, path: &str, errors: &mut Vec<FieldError>) {
    for variable in fingerprint::variables(text) {
        if let Variable::Unknown(name) = variable {
            errors.push(error(
                path,
                &format!("`{{{{ {name} }}}}` is not known; there are {}", fingerprint::KNOWN),
            ));
        }
    }
}

impl Patterns {
    fn parse(value: &Value, path: &str, errors: &mut Vec<FieldError>) -> Option<Self> {
        let list: Vec<&Value> = match value {
            Value::String(_) => vec![value],
            Value::Array(list) if (1..=MOST_PATTERNS).contains(&list.len()) => {
                list.iter().collect()
            }
            _ => {
                errors.push(error(
                    path,
                    &format!("must be a pattern, or a list of 1 to {MOST_PATTERNS}"),
                ));
                return None;
            }
        };
        let mut patterns = Self { any: Vec::new(), none: Vec::new() };
        for pattern in list {
            let Some(text) =
                pattern.as_str().filter(|text| !text.is_empty() && text.len() <= LONGEST_PATTERN)
            else {
                errors.push(error(
                    path,
                    &format!("patterns are texts of 1 to {LONGEST_PATTERN} characters"),
                ));
                return None;
            };
            let lower = text.to_lowercase().replace('\\', "/");
            match lower.strip_prefix('!') {
                Some(not) => patterns.none.push(not.to_owned()),
                None => patterns.any.push(lower),
            }
        }
        Some(patterns)
    }

    /// One of the texts is among those wanted, and none among those not wanted.
    fn match_any<'a>(&self, texts: impl Iterator<Item = &'a str>) -> bool {
        let mut any = self.any.is_empty();
        for text in texts {
            let end = text.floor_char_boundary(LONGEST_TEXT);
            let text = text.get(..end).unwrap_or_default().to_lowercase().replace('\\', "/");
            if self.none.iter().any(|pattern| glob(pattern, &text)) {
                return false;
            }
            any = any || self.any.iter().any(|pattern| glob(pattern, &text));
        }
        any
    }
}

/// `*` is any characters, `?` is one.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on when it does not match: behind the last `*`, one character later.
    let mut retry: Option<(&str, &str)> = None;
    loop {
        let mut wanted = pattern.chars();
        let mut given = text.chars();
        match (wanted.next(), given.next()) {
            (Some('*'), _) => {
                pattern = wanted.as_str();
                retry = Some((pattern, text));
                continue;
            }
            (Some(one), Some(other)) if one == '?' || one == other => {
                (pattern, text) = (wanted.as_str(), given.as_str());
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let Some((after, from)) = retry else { return false };
        let mut rest = from.chars();
        if rest.next().is_none() {
            return false;
        }
        (pattern, text) = (after, rest.as_str());
        retry = Some((after, rest.as_str()));
    }
}

fn error(path: &str, message: &str) -> FieldError {
    FieldError { path: path.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn globs_match() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*.vendor.*", "com.vendor.x", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "", true),
            ("abc", "abcd", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*aab", "aaaaab", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn every_mistake_is_told_by_path() {
        let errors = Rules::parse(&json!([
            {"match": {"exception_type": "A"}},
            {"match": {}, "group": "off"},
            {"match": {"file": "x"}, "group": "maybe"},
            {"match": {"function": ["a", 5]}, "fingerprint": ["{{ colour }}", ""], "in_app": "no", "more": 1},
            5,
        ]))
        .unwrap_err();
        let mut paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "[0]",
                "[1].match",
                "[2].group",
                "[2].match.file",
                "[3].fingerprint[0]",
                "[3].fingerprint[1]",
                "[3].in_app",
                "[3].match.function",
                "[3].more",
                "[4]",
            ]
        );
        assert_eq!(Rules::parse(&json!({})).unwrap_err()[0].path, "");
        assert!(Rules::parse(&json!([])).unwrap().0.is_empty());
    }
}
