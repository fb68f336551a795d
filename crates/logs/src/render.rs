//! A line's forms: flat JSON and text on standard output, a JSON entry in the buffer.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, Utc};
use tracing::Level;

use crate::{layer::Happened, values::Values};

/// How lines look on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One object a line: time, level, message and fields, target, the fields of the spans around it.
    Json,
    /// For people.
    Pretty { colours: bool },
}

/// What the routes of this crate are called, here and between servers.
pub(crate) const WATCHING: [&str; 2] = ["/api/admin/logs", "/internal/logs"];
/// The span of their work.
pub(crate) const WATCHING_SPAN: &str = "log_watching";

/// Lines about looking at lines would be looked at, and so on.
pub(crate) fn is_about_watching(happened: &Happened) -> bool {
    happened.spans.iter().any(|span| span.name == WATCHING_SPAN)
        || happened
            .values
            .get("route")
            .is_some_and(|route| WATCHING.iter().any(|prefix| route.starts_with(prefix)))
}

impl Form {
    pub(crate) fn write(self, happened: &Happened, to: &mut String) {
        // Writing into a string does not fail.
        let _ = match self {
            Self::Json => json(happened, to),
            Self::Pretty { colours } => pretty(happened, colours, to),
        };
    }

    /// That lines are missing here.
    pub(crate) fn write_dropped(self, now: DateTime<Utc>, dropped: u64, to: &mut String) {
        let now = now.to_rfc3339_opts(SecondsFormat::Micros, true);
        let message = "lines were dropped: more were logged than could be written";
        let _ = match self {
            Self::Json => writeln!(
                to,
                r#"{{"timestamp":"{now}","level":"WARN","message":"{message}","dropped":{dropped},"target":"loom_logs"}}"#
            ),
            Self::Pretty { .. } => writeln!(to, "{now}  WARN {message} dropped={dropped}"),
        };
    }
}

fn json(happened: &Happened, to: &mut String) -> std::fmt::Result {
    let now = happened.at.to_rfc3339_opts(SecondsFormat::Micros, true);
    write!(to, r#"{{"timestamp":"{now}","level":"{}""#, happened.metadata.level())?;
    for value in happened.values.iter() {
        member(to, value.name, value.text, value.bare);
    }
    to.push_str(",\"target\":");
    quoted(to, happened.metadata.target());
    for value in happened.spans.iter().filter_map(|span| span.redacted.get()).flat_map(Values::iter)
    {
        member(to, value.name, value.text, value.bare);
    }
    to.push_str("}\n");
    Ok(())
}

fn pretty(happened: &Happened, colours: bool, to: &mut String) -> std::fmt::Result {
    let paint = |code: &'static str| if colours { code } else { "" };
    let (dim, bold, off) = (paint("\x1b[2m"), paint("\x1b[1m"), paint("\x1b[0m"));
    let level = *happened.metadata.level();
    let colour = paint(match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    });
    let now = happened.at.to_rfc3339_opts(SecondsFormat::Micros, true);
    write!(to, "{dim}{now}{off} {colour}{level:>5}{off} ")?;
    for span in &happened.spans {
        write!(to, "{bold}{}{off}", span.name)?;
        let mut between = "{";
        for value in span.redacted.get().into_iter().flat_map(Values::iter) {
            write!(to, "{between}{dim}{}={off}", value.name)?;
            printable(to, value.text);
            between = " ";
        }
        to.push_str(if between == "{" { ": " } else { "}: " });
    }
    printable(to, happened.values.get("message").unwrap_or_default());
    for value in happened.values.iter().filter(|value| value.name != "message") {
        write!(to, " {dim}{}={off}", value.name)?;
        printable(to, value.text);
    }
    to.push('\n');
    Ok(())
}

/// Without what a terminal would take for a command.
fn printable(to: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            to.extend(c.escape_default());
        } else {
            to.push(c);
        }
    }
}

pub(crate) fn member(to: &mut String, name: &str, text: &str, bare: bool) {
    to.push(',');
    quoted(to, name);
    to.push(':');
    if bare {
        to.push_str(text);
    } else {
        quoted(to, text);
    }
}

pub(crate) fn quoted(to: &mut String, text: &str) {
    to.push('"');
    escaped(to, text);
    to.push('"');
}

/// The inside of a JSON string (RFC 8259, section 7).
pub(crate) fn escaped(to: &mut String, text: &str) {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        to.push_str(text.get(plain..at).unwrap_or_default());
        plain = at + 1;
        match byte {
            b'"' => to.push_str("\\\""),
            b'\\' => to.push_str("\\\\"),
            b'\n' => to.push_str("\\n"),
            b'\r' => to.push_str("\\r"),
            b'\t' => to.push_str("\\t"),
            _ => {
                let _ = write!(to, "\\u{byte:04x}");
            }
        }
    }
    to.push_str(text.get(plain..).unwrap_or_default());
}
