//! One row for each request to a model, whatever became of it, written without making the reply wait.

use std::{sync::Arc, time::Instant};

use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, Utc};
use loom_core::{
    Clock, Principal, Result,
    group_commit::{Limits, Writer},
    id::{CredentialId, LlmRequestId, ThreadId, WeaverId},
    principal::{Actor, RequestInfo},
    telemetry::SpanContext,
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    LlmProxy,
    dialect::Operation,
    drain::Drains,
    limits::{Limits as Budgets, Need, Reservation, bare},
    measures::Measures,
    observe::Seen,
    price::Overrides,
    provider::Provider,
    record, trace,
    trailer::{self, Told},
    usage::Usage,
    usage_sums::News,
};

/// A usage row waits this long for company. A server that is killed loses at most this much, and
/// what was being written.
const LINGER: std::time::Duration = std::time::Duration::from_millis(10);
const MAX_TAGS: usize = 20;
/// Bytes of the name of a model or an error.
const MAX_NAME: usize = 200;

/// A row of `llm_requests`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) org_id: Uuid,
    pub(crate) user_id: Option<Uuid>,
    pub(crate) api_key_id: Option<Uuid>,
    pub(crate) thread_id: Option<Uuid>,
    pub(crate) weaver_id: Option<Uuid>,
    /// Joined by commas, as the header has them.
    pub(crate) tags: String,
    pub(crate) request_id: Arc<str>,
    pub(crate) operation: &'static str,
    pub(crate) provider: Arc<str>,
    pub(crate) credential_id: Option<Uuid>,
    pub(crate) model: String,
    pub(crate) response_model: Option<String>,
    pub(crate) upstream_request_id: Option<String>,
    pub(crate) streamed: bool,
    pub(crate) outcome: &'static str,
    pub(crate) status: Option<i32>,
    pub(crate) error_code: Option<String>,
    pub(crate) usage: Usage,
    /// False: the tokens are those seen until the reply broke off.
    pub(crate) usage_complete: bool,
    pub(crate) cost_nanousd: Option<i64>,
    pub(crate) latency_ms: f64,
    pub(crate) first_token_ms: Option<f64>,
    pub(crate) request_bytes: i64,
    pub(crate) response_bytes: i64,
    /// None: a provider was asked.
    pub(crate) served_from: Option<&'static str>,
}

/// Writes the rows.
#[derive(Clone)]
pub(crate) struct Ledger {
    writer: Writer<Row>,
    /// The writer's one connection.
    own: PgPool,
    clock: Clock,
    prices: Arc<Overrides>,
    drains: Drains,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
}

impl Outcome {
    pub(crate) const ALL: [Self; 3] = [Self::Succeeded, Self::Failed, Self::Cancelled];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Ledger {
    pub(crate) fn start(
        pool: &PgPool,
        clock: Clock,
        budgets: Budgets,
        prices: Arc<Overrides>,
        drains: Drains,
        news: News,
    ) -> Self {
        let limits = Limits { linger: LINGER, ..Limits::default() };
        // In the queue for the shared connections a batch would wait behind every request of a busy
        // server, and be lost if the server were killed meanwhile.
        let options = pool.connect_options().as_ref().clone();
        let own = pool.options().clone().max_connections(1).connect_lazy_with(options);
        let writer = {
            let own = own.clone();
            Writer::start("llm_requests", limits, move |rows: Arc<[Row]>| {
                let (own, budgets, news) = (own.clone(), budgets.clone(), news.clone());
                async move {
                    budgets.store(&own, &rows).await?;
                    news.recorded(&rows);
                    Ok(())
                }
            })
        };
        Self { writer, own, clock, prices, drains }
    }

    /// Keeps the rows instead of storing them.
    #[cfg(test)]
    pub(crate) fn keep(clock: Clock) -> (Self, Arc<std::sync::Mutex<Vec<Row>>>) {
        let kept: Arc<std::sync::Mutex<Vec<Row>>> = Arc::default();
        let to = Arc::clone(&kept);
        let writer = Writer::start("llm_requests", Limits::default(), move |rows: Arc<[Row]>| {
            to.lock().unwrap().extend(rows.iter().cloned());
            async { Ok(()) }
        });
        let own = sqlx::postgres::PgPoolOptions::new()
            .connect_lazy_with(sqlx::postgres::PgConnectOptions::new_without_pgpass());
        (Self { writer, own, clock, prices: Arc::default(), drains: Drains::default() }, kept)
    }

    pub(crate) async fn close(&self) {
        self.drains.close().await;
        self.writer.close().await;
        self.own.close().await;
    }

    /// Begins the account of one request. Whatever happens to the meter, one row is written.
    ///
    /// # Errors
    /// 400 for an attribution header that is none.
    pub(crate) fn open(&self, request: &Opening<'_>) -> Result<Meter> {
        let Opening { principal, info, headers, provider, model, streamed, request_bytes, need } =
            request;
        let now = self.clock.now();
        let weaver = match principal.actor {
            Actor::Weaver(id) => Some(id),
            Actor::User(_) | Actor::Service(_) => {
                attribution::<WeaverId>(headers, "x-loom-weaver-id")?
            }
        };
        let row = Row {
            id: LlmRequestId::new(now).0,
            started_at: now,
            org_id: principal.org.0,
            user_id: principal.user_id().map(|id| id.0),
            api_key_id: principal.api_key_id().map(|id| id.0),
            thread_id: attribution::<ThreadId>(headers, "x-loom-thread-id")?.map(|id| id.0),
            weaver_id: weaver.map(|id| id.0),
            tags: tags(headers)?,
            request_id: Arc::clone(&info.id),
            operation: need.operation.name(),
            provider: Arc::clone(&provider.name),
            credential_id: None,
            model: loom_core::text::cut(model, MAX_NAME).to_owned(),
            response_model: None,
            upstream_request_id: None,
            streamed: *streamed,
            outcome: Outcome::Cancelled.name(),
            status: None,
            error_code: None,
            usage: Usage::default(),
            usage_complete: false,
            cost_nanousd: None,
            latency_ms: 0.0,
            first_token_ms: None,
            request_bytes: i64::try_from(*request_bytes).unwrap_or(i64::MAX),
            response_bytes: 0,
            served_from: None,
        };
        record::note(|| record::Opened {
            id: LlmRequestId(row.id),
            provider: Arc::clone(&row.provider),
            model: row.model.clone(),
        });
        Ok(Meter {
            row: Some(Box::new(row)),
            measures: Arc::clone(&provider.measures),
            span: loom_core::telemetry::current(),
            started: Instant::now(),
            left: None,
            finish: None,
            told: trailer::wanted(),
            clock: self.clock.clone(),
            prices: Arc::clone(&self.prices),
            drains: self.drains.clone(),
            writer: self.writer.clone(),
            need: request.need,
            reservation: None,
        })
    }
}

impl LlmProxy {
    /// Lets a request in, or not, and begins its account.
    ///
    /// # Errors
    /// 400 for an attribution header that is none, 429 for what a limit has no room for.
    pub(crate) async fn open_account(&self, request: &Opening<'_>) -> Result<Meter> {
        self.limits.check_weaver(request.principal, request.headers).await?;
        let mut meter = self.ledger.open(request)?;
        if let Err(error) = meter.admit(&self.limits).await {
            meter.fail(error.status(), error.code());
            return Err(error);
        }
        Ok(meter)
    }
}

/// What is known when a request begins.
pub(crate) struct Opening<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) info: &'a RequestInfo,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) provider: &'a Provider,
    pub(crate) model: &'a str,
    pub(crate) streamed: bool,
    pub(crate) request_bytes: usize,
    pub(crate) need: Need,
}

pub(crate) fn attribution<T: std::str::FromStr>(
    headers: &HeaderMap,
    name: &'static str,
) -> Result<Option<T>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().ok().and_then(|text| text.trim().parse().ok()).map(Some).ok_or_else(|| {
        loom_core::Error::malformed("invalid_request", format!("`{name}` does not hold such an id"))
    })
}

fn tags(headers: &HeaderMap) -> Result<String> {
    let Some(value) = headers.get("x-loom-tags") else { return Ok(String::new()) };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || text.len() > 1000 || text.split(',').count() > MAX_TAGS {
        return Err(loom_core::Error::malformed(
            "invalid_request",
            format!(
                "`x-loom-tags` holds up to {MAX_TAGS} words with commas between, 1000 bytes in all"
            ),
        ));
    }
    Ok(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect::<Vec<_>>().join(","))
}

/// The running account of one request. Dropped without an end, the request was cancelled.
pub(crate) struct Meter {
    row: Option<Box<Row>>,
    measures: Arc<Measures>,
    /// The request's, when it is traced.
    span: Option<SpanContext>,
    started: Instant,
    /// When its client left, though more of the reply was still read.
    left: Option<Instant>,
    /// Why the reply ended, in the provider's word.
    finish: Option<String>,
    /// Where the cost is awaited by who tells it behind the reply.
    told: Option<Told>,
    clock: Clock,
    prices: Arc<Overrides>,
    drains: Drains,
    writer: Writer<Row>,
    /// What it may use where it is asked now.
    need: Need,
    /// That, of the limits that it counts against.
    reservation: Option<Reservation>,
}

impl Meter {
    fn change(&mut self, change: impl FnOnce(&mut Row)) {
        if let Some(row) = &mut self.row {
            change(row);
        }
    }

    /// As in the log of requests.
    pub(crate) fn id(&self) -> LlmRequestId {
        LlmRequestId(self.row.as_ref().map(|row| row.id).unwrap_or_default())
    }

    /// Reserves what it may use where it is asked now, in place of what was reserved for another place:
    /// limits may be of one model only, and prices differ.
    ///
    /// # Errors
    /// As of [`Budgets::reserve`]; what was reserved before stays.
    pub(crate) async fn admit(&mut self, limits: &Budgets) -> Result<()> {
        let Some(row) = &self.row else { return Ok(()) };
        limits.reserve(&mut self.reservation, self.need, row).await
    }

    /// Who answers in the end. `model`: its name there, where a route chose it.
    pub(crate) fn served_by(
        &mut self,
        provider: &Provider,
        operation: Operation,
        model: Option<&str>,
    ) {
        self.need.operation = operation;
        self.change(|row| {
            row.operation = operation.name();
            if let Some(model) = model
                && row.model != model
            {
                loom_core::text::cut(model, MAX_NAME).clone_into(&mut row.model);
            }
            if !Arc::ptr_eq(&row.provider, &provider.name) {
                row.provider = Arc::clone(&provider.name);
            }
        });
        if !Arc::ptr_eq(&self.measures, &provider.measures) {
            self.measures = Arc::clone(&provider.measures);
        }
    }

    pub(crate) fn credential(&mut self, id: Option<CredentialId>) {
        self.change(|row| row.credential_id = id.map(|id| id.0));
    }

    /// No provider was asked: it costs nothing.
    pub(crate) fn served_from(&mut self, place: &'static str) {
        self.change(|row| {
            row.served_from = Some(place);
            row.usage_complete = true;
            row.cost_nanousd = Some(0);
            row.usage_complete = true;
        });
    }

    pub(crate) fn answered(&mut self, status: StatusCode, upstream_request_id: Option<String>) {
        self.change(|row| {
            row.status = Some(status.as_u16().into());
            row.upstream_request_id = upstream_request_id;
        });
    }

    /// What every response says of its account, whatever its wire.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        if let Some(reservation) = &self.reservation {
            reservation.tell(headers);
        }
    }

    pub(crate) fn passed(&mut self, bytes: usize) {
        self.change(|row| row.response_bytes += i64::try_from(bytes).unwrap_or_default());
    }

    /// What the reply said of itself; computes the cost, in billionths of a dollar.
    pub(crate) fn saw(&mut self, seen: &Seen) -> Option<i64> {
        let started = self.started;
        let row = self.row.as_mut()?;
        row.usage = seen.usage;
        row.usage_complete = seen.counted;
        if !seen.complete && !seen.counted && seen.pieces > 0 {
            // It broke off, and the count was still to come: each piece was a token at the least.
            row.usage.output = Some(seen.usage.output.unwrap_or_default().max(seen.pieces));
        }
        if seen.model.is_some() {
            row.response_model.clone_from(&seen.model);
        }
        row.first_token_ms = seen.first_content.map(|at| (at - started).as_secs_f64() * 1e3);
        if row.error_code.is_none() {
            row.error_code.clone_from(&seen.error);
        }
        self.finish.clone_from(&seen.finish);
        let price = |model: &str| self.prices.of(row.org_id, &row.provider, model);
        let model = row.response_model.as_deref();
        // Prices go by the model's name alone.
        let price = model.and_then(price).or_else(|| price(bare(&row.provider, &row.model)));
        row.cost_nanousd = price.and_then(|price| price.cost_nanousd(&row.usage));
        row.cost_nanousd
    }

    /// Its client has left. More of the reply may be read for the account; no time of the client's
    /// passes any more.
    pub(crate) fn left(&mut self) {
        self.left = Some(Instant::now());
    }

    /// Where the time between two pieces of its reply is measured.
    pub(crate) fn gaps(&self) -> metrics::Histogram {
        self.measures.output_chunk.clone()
    }

    pub(crate) fn drains(&self) -> &Drains {
        &self.drains
    }

    /// Ends the account of a request that got an error of ours.
    pub(crate) fn fail(mut self, status: StatusCode, code: &str) {
        self.change(|row| row.status = Some(status.as_u16().into()));
        self.end(Outcome::Failed, Some(code));
    }

    pub(crate) fn end(mut self, outcome: Outcome, code: Option<&str>) {
        self.write(outcome, code);
    }

    fn write(&mut self, outcome: Outcome, code: Option<&str>) {
        let Some(mut row) = self.row.take() else { return };
        row.outcome = outcome.name();
        let took = self.left.unwrap_or_else(Instant::now).saturating_duration_since(self.started);
        row.latency_ms = took.as_secs_f64() * 1e3;
        if row.error_code.is_none() {
            row.error_code = code.map(str::to_owned);
        }
        // Nothing is used by what is refused, nor by counting.
        let refused = match row.status {
            Some(status) => status >= 300,
            None => outcome == Outcome::Failed,
        };
        row.usage_complete |= refused || row.operation == Operation::CountTokens.name();
        row.model = storable(row.model);
        row.response_model = row.response_model.map(storable);
        row.error_code = row.error_code.map(storable);
        if row.cost_nanousd.is_none() && !row.usage.is_unknown() {
            self.prices.warn(&row.provider, &row.model, self.clock.now());
        }
        if let Some(told) = &self.told {
            told.tell(row.cost_nanousd);
        }
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(&row);
        }
        self.measures.record(&row);
        if let Some(span) = self.span {
            trace::finish(span, &row, self.finish.as_deref());
        }
        self.writer.send(*row);
    }
}

/// A name that somebody else chose, as the database takes it: a row that it refuses is a request
/// that is not accounted.
fn storable(name: String) -> String {
    let fits = name.len() <= MAX_NAME && !name.contains('\0');
    if fits {
        name
    } else {
        loom_core::text::cut(&name.replace('\0', "\u{fffd}"), MAX_NAME).to_owned()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.write(Outcome::Cancelled, None);
    }
}
