//! A log line as one JSON object: time, level, message and fields, target, and the fields of the spans
//! around it. Written straight into the line's buffer: a line per request is on every request's way,
//! and tracing-subscriber's own formatter costs four times as much.

use std::fmt::{self, Write};

use chrono::SecondsFormat;
use loom_core::Clock;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormattedFields,
        format::{FormatEvent, FormatFields, Writer},
    },
    registry::LookupSpan,
};

/// Expects the fields of spans to be formatted by `JsonFields`.
pub(super) struct JsonLines(pub(super) Clock);

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let now = self.0.now().to_rfc3339_opts(SecondsFormat::Micros, true);
        write!(line, r#"{{"timestamp":"{now}","level":"{}""#, metadata.level())?;
        let mut fields = Fields { line: line.by_ref(), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        line.write_str(r#","target":"#)?;
        quoted(&mut line, metadata.target())?;
        for span in
            ctx.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            let extensions = span.extensions();
            let object =
                extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.fields.as_str());
            let members = object
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'))
                .unwrap_or_default();
            if !members.is_empty() {
                write!(line, ",{members}")?;
            }
        }
        line.write_str("}\n")
    }
}

/// The fields of an event, the message among them.
struct Fields<'a> {
    line: Writer<'a>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result =
                write!(self.line, r#","{}":"#, field.name()).and_then(|()| value(&mut self.line));
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |line| quoted(line, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, |line| {
            if value.is_finite() { write!(line, "{value}") } else { line.write_str("null") }
        });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |line| {
            line.write_char('"')?;
            write!(Escaped(line.by_ref()), "{value:?}")?;
            line.write_char('"')
        });
    }
}

fn quoted(line: &mut Writer<'_>, text: &str) -> fmt::Result {
    line.write_char('"')?;
    Escaped(line.by_ref()).write_str(text)?;
    line.write_char('"')
}

/// The inside of a JSON string (RFC 8259, section 7).
struct Escaped<'a>(Writer<'a>);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| matches!(c, '"' | '\\' | '\0'..='\x1f')) {
            let (plain, tail) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut chars = tail.chars();
            match chars.next() {
                Some('"') => self.0.write_str("\\\"")?,
                Some('\\') => self.0.write_str("\\\\")?,
                Some('\n') => self.0.write_str("\\n")?,
                Some(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                None => {}
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::{
        fmt::{MakeWriter, format::JsonFields},
        layer::SubscriberExt,
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// The lines that `log` leaves, parsed.
    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines(Clock::manual("2027-01-02T03:04:05.6Z".parse().unwrap())))
            .with_writer(kept.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_an_object_with_its_fields_and_those_of_its_spans() {
        let lines = lines(|| {
            let outer = tracing::info_span!(
                "request",
                request_id = "r-1",
                trace_id = tracing::field::Empty
            );
            let _outer = outer.enter();
            let _inner = tracing::info_span!("inner", depth = 2).entered();
            tracing::warn!(target: "loom_x", count = 3_u64, below = -1, share = 0.5, none = f64::NAN, yes = true, who = ?Some("a\"b"), "it is\nthis: \u{1} \\ ä");
        });
        assert_eq!(
            lines,
            [serde_json::json!({
                "timestamp": "2027-01-02T03:04:05.600000Z", "level": "WARN", "target": "loom_x",
                "message": "it is\nthis: \u{1} \\ ä", "count": 3, "below": -1, "share": 0.5, "none": null, "yes": true,
                "who": "Some(\"a\\\"b\")", "request_id": "r-1", "depth": 2,
            })]
        );
    }

    #[test]
    fn lines_outside_of_spans_stand_alone() {
        let lines = lines(|| {
            tracing::info!("one");
            tracing::error!(error = %std::io::Error::other("no \"room\""), "two");
        });
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["error"], "no \"room\"");
    }
}
