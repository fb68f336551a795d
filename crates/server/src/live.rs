//! Many streams of events over one connection: a browser has six for a server, and a page wants more.

use std::{collections::BTreeMap, convert::Infallible};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, RawQuery, Request, State},
    http::{HeaderValue, Uri, header},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt,
    stream::{self, SelectAll},
};
use loom_core::{Error, Result, principal, sse};
use memchr::memmem;
use serde::Serialize;
use tower::ServiceExt;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Streams of one connection.
const MOST: usize = 16;
/// Of the path and query of one of them.
const LONGEST_PATH: usize = 2000;
/// A stream that says more than this without the end of an event is cut off.
const LONGEST_EVENT: usize = 1 << 20;
/// Of an answer that is no stream: what is told of it.
const LONGEST_REFUSAL: usize = 16 << 10;

/// One event of one stream.
#[derive(Serialize)]
struct Piece<'a> {
    of: &'a str,
    event: &'a str,
    data: &'a str,
}

/// The routes, of which `streams` are those that may be asked for.
pub(crate) fn routes(streams: Router) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(watch_many))
        .route_layer(axum::middleware::from_fn(principal::required))
        .with_state(streams)
}

/// Several streams in one: each event's data is `{of, event, data}`, its id says how far all of them are, so
/// that `Last-Event-ID` goes on with each. A stream that is refused tells `refused` with the problem, one
/// that ends `end`; the others go on.
#[utoipa::path(get, path = "/api/live", tag = "server", 
    params(
        ("of" = Vec<String>, Query, description = "Path and query of a stream of this server, as `/api/crons/stream`; up to 16 times"),
        ("org" = Option<String>, Query, description = "The organisation of all of them, for who cannot send the header `x-loom-org`"),
        ("last_event_id" = Option<String>, Query, description = "The id of the last event that was seen, for who cannot send the header `Last-Event-ID`"),
    ), security(("api_key" = []), ("session" = [])),
    responses((status = 200, description = "The events", content_type = "text/event-stream"),
              (status = 422, description = "`of` names no stream, or too many")))]
async fn watch_many(
    State(streams): State<Router>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response> {
    let Wanted { streams: wanted, after: asked_after, org } =
        wanted(query.as_deref().unwrap_or_default())?;
    let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    let last = last.map(str::to_owned).or(asked_after);
    let mut ids: BTreeMap<String, String> =
        last.and_then(|last| serde_urlencoded::from_str(&last).ok()).unwrap_or_default();
    ids.retain(|of, _| wanted.iter().any(|(path, _)| path == of));

    let mut all = SelectAll::new();
    for (of, uri) in wanted {
        let mut asked = Request::new(Body::empty());
        *asked.uri_mut() = uri;
        asked.headers_mut().clone_from(request.headers());
        asked.headers_mut().remove("last-event-id");
        // Whether they still may is asked with this request: of the same organisation.
        if let Some(org) = &org
            && !asked.headers().contains_key("x-loom-org")
        {
            asked.headers_mut().insert("x-loom-org", org.clone());
        }
        asked.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = ids.get(&of).and_then(|id| HeaderValue::from_str(id).ok()) {
            asked.headers_mut().insert("last-event-id", id);
        }
        // Who asks, from where, by which request.
        asked.extensions_mut().clone_from(request.extensions());
        asked.extensions_mut().remove::<MatchedPath>();
        let answer =
            streams.clone().oneshot(asked).await.unwrap_or_else(|never: Infallible| match never {});
        all.push(events(of, answer).boxed());
    }
    let pieces = stream::unfold((all, ids), |(mut all, mut ids)| async move {
        let (of, told) = all.next().await?;
        let piece = match told {
            Told::Comment { id, retry } => {
                // How far it is, of a stream that had nothing to tell: said with the next event.
                if let Some(id) = id {
                    ids.insert(of.to_string(), id);
                }
                match retry {
                    Some(millis) => Bytes::from(format!("retry: {millis}\n\n")),
                    None => Bytes::from_static(b": keep-alive\n\n"),
                }
            }
            Told::Event { event, data, id } => {
                if let Some(id) = id {
                    ids.insert(of.to_string(), id);
                }
                let data = serde_json::to_string(&Piece { of: &of, event: &event, data: &data });
                let id = serde_urlencoded::to_string(&ids);
                let (data, id) = (data.unwrap_or_default(), id.unwrap_or_default());
                Bytes::from(format!("id: {id}\ndata: {data}\n\n"))
            }
        };
        Some((piece, (all, ids)))
    });
    Ok(sse::raw_response(pieces))
}

/// What is asked for.
struct Wanted {
    /// Path and query of each stream.
    streams: Vec<(String, Uri)>,
    /// After which event.
    after: Option<String>,
    /// Of which organisation, when the address says it.
    org: Option<HeaderValue>,
}

fn wanted(query: &str) -> Result<Wanted> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let mut wanted: Vec<(String, Uri)> = Vec::new();
    let (mut after, mut org) = (None, None);
    for (name, of) in pairs {
        if name == "last_event_id" {
            after = Some(of);
            continue;
        }
        if name == "org" {
            let named = HeaderValue::from_str(&of)
                .map_err(|_| Error::invalid("org", "is an id or a slug"))?;
            org = org.or(Some(named));
            continue;
        }
        if name != "of" {
            return Err(Error::invalid(name, "is no parameter of this route"));
        }
        let (path, parameters) = of.split_once('?').unwrap_or((of.as_str(), ""));
        if parameters.split('&').any(|pair| pair.starts_with("org=")) {
            // Who asks was found out before: of one organisation.
            return Err(Error::invalid("of", "names no organisation; `org` does, for all of them"));
        }
        let is_stream = path.starts_with("/api/")
            && path != "/api/live"
            && ["/stream", "/events", "/logs"].iter().any(|end| path.ends_with(end));
        let uri = of.parse::<Uri>().ok().filter(|_| is_stream && of.len() <= LONGEST_PATH);
        let uri = uri.ok_or_else(|| {
            Error::invalid("of", "is the path of a stream under /api, as /api/crons/stream")
        })?;
        if !wanted.iter().any(|(known, _)| *known == of) {
            wanted.push((of, uri));
        }
    }
    match wanted.len() {
        1..=MOST => Ok(Wanted { streams: wanted, after, org }),
        0 => {
            Err(Error::invalid("of", "names the streams that are wanted, as of=/api/crons/stream"))
        }
        _ => Err(Error::invalid("of", format!("names at most {MOST} streams"))),
    }
}

enum Told {
    /// And, before it ends, when to come again.
    Comment {
        id: Option<String>,
        retry: Option<u32>,
    },
    Event {
        event: String,
        data: String,
        id: Option<String>,
    },
}

/// The events of one answer, with whose they are.
fn events(of: String, answer: Response) -> impl Stream<Item = (std::sync::Arc<str>, Told)> + Send {
    let of: std::sync::Arc<str> = of.into();
    let is_stream = answer.status().is_success()
        && answer
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let simple =
        |event: &str, data: String| Told::Event { event: event.to_owned(), data, id: None };
    let told = if is_stream {
        let blocks = Blocks { body: answer.into_body(), unread: BytesMut::new(), ended: false };
        stream::unfold(blocks, |mut blocks| async move {
            let block = blocks.next().await?;
            Some((read(&block), blocks))
        })
        .chain(stream::once(async move { simple("end", "{}".to_owned()) }))
        .boxed()
    } else {
        stream::once(async move {
            let body = axum::body::to_bytes(answer.into_body(), LONGEST_REFUSAL).await;
            let problem = body.unwrap_or_default();
            simple("refused", String::from_utf8_lossy(&problem).into_owned())
        })
        .boxed()
    };
    told.map(move |told| (std::sync::Arc::clone(&of), told))
}

/// A body in blocks that end with an empty line.
struct Blocks {
    body: Body,
    unread: BytesMut,
    ended: bool,
}

impl Blocks {
    async fn next(&mut self) -> Option<BytesMut> {
        use http_body_util::BodyExt;
        loop {
            if let Some(at) = memmem::find(&self.unread, b"\n\n") {
                return Some(self.unread.split_to(at + 2));
            }
            if self.ended || self.unread.len() > LONGEST_EVENT {
                return None;
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.unread.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }
}

/// Our own streams end their lines with `\n` alone.
fn read(block: &[u8]) -> Told {
    let (mut event, mut data, mut id) = ("message".to_owned(), None::<String>, None);
    let mut retry = None;
    for line in String::from_utf8_lossy(block).lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event = value.to_owned(),
            "id" => id = Some(value.to_owned()),
            "retry" => retry = value.parse().ok(),
            "data" => match &mut data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => data = Some(value.to_owned()),
            },
            _ => {}
        }
    }
    match data {
        Some(data) => Told::Event { event, data, id },
        None => Told::Comment { id, retry },
    }
}
