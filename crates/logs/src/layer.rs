//! What tracing calls for each event: notes it and hands it on, and never waits.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use tracing::{
    Event, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, Scope},
};

use crate::{pipe::Inlet, values::Values};

/// Lines for standard output and for the buffer. Its filter belongs over the whole registry.
pub struct LogLayer(Inlet);

/// An event as it happened, nothing of it masked yet.
pub(crate) struct Happened {
    pub(crate) at: DateTime<Utc>,
    pub(crate) metadata: &'static Metadata<'static>,
    pub(crate) values: Values,
    /// From the outermost.
    pub(crate) spans: Vec<Arc<Span>>,
}

impl Happened {
    pub(crate) fn len(&self) -> usize {
        size_of::<Self>() + self.values.len()
    }
}

pub(crate) struct Span {
    pub(crate) name: &'static str,
    pub(crate) values: Values,
    /// Masked by whoever needs it first.
    pub(crate) redacted: OnceLock<Values>,
}

impl Span {
    fn new(name: &'static str, values: Values) -> Arc<Self> {
        Arc::new(Self { name, values, redacted: OnceLock::new() })
    }
}

impl LogLayer {
    pub(crate) fn new(inlet: Inlet) -> Self {
        Self(inlet)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut values = Values::default();
        attributes.record(&mut values);
        span.extensions_mut().insert(Span::new(span.name(), values));
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(noted) = extensions.get_mut::<Arc<Span>>() {
            let mut values = noted.values.clone();
            record.record(&mut values);
            *noted = Span::new(noted.name, values);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut values = Values::default();
        event.record(&mut values);
        let scope = ctx.event_scope(event).into_iter().flat_map(Scope::from_root);
        let spans = scope.filter_map(|span| span.extensions().get::<Arc<Span>>().cloned());
        self.0.put(Happened {
            at: self.0.now(),
            metadata: event.metadata(),
            values,
            spans: spans.collect(),
        });
    }
}
