//! The span of a request: where it stands in a trace (W3C Trace Context), and what is told of it.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode};
use loom_core::{
    Clock,
    id::OrgId,
    telemetry::{self, Span, SpanContext, SpanKind},
};

use crate::otlp::Sampler;

/// The request's place in the trace of its caller (`traceparent`, version 00 form).
pub(crate) fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace_id, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let sound = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace_id, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2);
    if !sound {
        return None;
    }
    let context = SpanContext {
        trace_id: u128::from_str_radix(trace_id, 16).ok()?,
        span_id: u64::from_str_radix(parent, 16).ok()?,
        sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
    };
    (context.trace_id != 0 && context.span_id != 0).then_some(context)
}

/// The span of a request, from its begin on.
pub(crate) struct Traced {
    pub(crate) context: SpanContext,
    parent: u64,
    start: SystemTime,
    pub(crate) org: OnceLock<OrgId>,
}

impl Traced {
    /// None: the request is not traced.
    pub(crate) fn begin(
        sampler: Option<Sampler>,
        parent: Option<SpanContext>,
        clock: &Clock,
    ) -> Option<Self> {
        let sampler = sampler?;
        let trace_id = parent.map_or_else(|| rand::random::<u128>().max(1), |p| p.trace_id);
        let sampled = sampler.samples(parent, trace_id);
        let place = SpanContext { trace_id, span_id: 0, sampled };
        Some(Self {
            context: telemetry::child_of(place),
            parent: parent.map_or(0, |parent| parent.span_id),
            start: clock.now().into(),
            org: OnceLock::new(),
        })
        .filter(|traced| traced.context.sampled)
    }

    /// By OpenTelemetry's conventions for HTTP servers; no path and no query, which may hold secrets.
    pub(crate) fn end(
        self,
        method: &'static str,
        route: &str,
        status: StatusCode,
        code: Option<&str>,
        request_id: &str,
        duration: Duration,
    ) {
        let mut attributes = vec![
            ("http.request.method", method.into()),
            ("http.response.status_code", i64::from(status.as_u16()).into()),
            ("loom.request.id", request_id.to_owned().into()),
        ];
        let has_route = route.starts_with('/');
        if has_route {
            attributes.push(("http.route", route.to_owned().into()));
        }
        if let Some(org) = self.org.get() {
            attributes.push(("loom.org.id", org.to_string().into()));
        }
        let error = status.is_server_error().then(|| {
            let kind = code.unwrap_or(status.as_str()).to_owned();
            attributes.push(("error.type", kind.clone().into()));
            kind
        });
        telemetry::finish(Span {
            context: self.context,
            parent: self.parent,
            name: if has_route { format!("{method} {route}") } else { method.to_owned() },
            kind: SpanKind::Server,
            start: self.start,
            duration,
            attributes,
            error,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_traceparent_gives_its_place_and_no_other() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            parent(&headers)
        };
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let place = of(&format!("00-{trace}-{span}-01")).unwrap();
        assert_eq!(format!("{:032x}", place.trace_id), trace);
        assert_eq!(format!("{:016x}", place.span_id), span);
        assert!(place.sampled && !of(&format!("00-{trace}-{span}-00")).unwrap().sampled);
        for bad in [
            String::new(),
            "00".to_owned(),
            format!("00-xyz-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}-{span}-0g"),
            format!("ff-{trace}-{span}-01"),
        ] {
            assert_eq!(of(&bad), None, "{bad}");
        }
    }
}
