//! A running request that several clients hear at once: each from the beginning, each at its own pace.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, response::Parts},
    response::Response,
};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use loom_core::Error;
use tokio::sync::watch;

use super::call::Digest;

/// What has come until now.
#[derive(Default)]
struct Progress {
    head: Option<Parts>,
    /// The whole of it was there before anybody came.
    is_replay: bool,
    pieces: Vec<Bytes>,
    end: Option<End>,
}

#[derive(Clone)]
enum End {
    Whole(Option<HeaderMap>),
    Broken,
    /// Too much to be kept: the rest is for the first who comes for it.
    Rest(Arc<Mutex<Option<Body>>>),
}

/// One run under an idempotency key, on this replica.
pub(super) struct Flight {
    pub(super) body: Digest,
    progress: watch::Sender<Progress>,
}

pub(super) struct Seat(watch::Receiver<Progress>);

impl Flight {
    pub(super) fn new(body: Digest) -> (Arc<Self>, Seat) {
        let (progress, seat) = watch::channel(Progress::default());
        (Arc::new(Self { body, progress }), Seat(seat))
    }

    pub(super) fn board(&self) -> Seat {
        Seat(self.progress.subscribe())
    }

    pub(super) fn is_deserted(&self) -> bool {
        self.progress.receiver_count() == 0
    }

    /// Resolves when all have left.
    pub(super) async fn deserted(&self) {
        self.progress.closed().await;
    }

    pub(super) fn begin(&self, head: Parts, is_replay: bool) {
        self.progress.send_modify(|progress| {
            progress.head = Some(head);
            progress.is_replay = is_replay;
        });
    }

    pub(super) fn push(&self, piece: Bytes) {
        self.progress.send_modify(|progress| progress.pieces.push(piece));
    }

    pub(super) fn end(&self, trailers: Option<HeaderMap>) {
        self.progress.send_modify(|progress| progress.end = Some(End::Whole(trailers)));
    }

    pub(super) fn break_off(&self) {
        self.progress.send_modify(|progress| progress.end = Some(End::Broken));
    }

    pub(super) fn hand_over(&self, rest: Body) {
        let rest = Arc::new(Mutex::new(Some(rest)));
        self.progress.send_modify(|progress| progress.end = Some(End::Rest(rest)));
    }
}

impl Seat {
    /// The response, as soon as it begins. `is_repeat`: another request has started it.
    pub(super) async fn response(mut self, is_repeat: bool) -> Response {
        let (head, is_replay) = match self.0.wait_for(|progress| progress.head.is_some()).await {
            Ok(progress) => (progress.head.clone(), progress.is_replay),
            Err(_) => (None, false),
        };
        let Some(head) = head else {
            return axum::response::IntoResponse::into_response(Error::internal(
                "the run of a request with an idempotency key ended without an answer",
            ));
        };
        let body = self.body();
        let mut response = Response::from_parts(head, body);
        if (is_repeat || is_replay) && response.status().is_success() {
            let value = HeaderValue::from_static("true");
            response.headers_mut().insert("x-loom-idempotent-replay", value);
        }
        response
    }

    fn body(self) -> Body {
        {
            // All there: told at once, with its length.
            let progress = self.0.borrow();
            if let (Some(End::Whole(None)), pieces) = (&progress.end, &progress.pieces) {
                return Body::from(super::kept::concat(pieces));
            }
        }
        let listener = Listener::Live { progress: self.0, at: 0 };
        let frames = futures::stream::unfold(listener, |listener| async move {
            let (frame, listener) = listener.next().await;
            Some((frame?, listener))
        });
        Body::new(StreamBody::new(frames))
    }
}

type Heard = Result<Frame<Bytes>, std::io::Error>;

enum Listener {
    Live { progress: watch::Receiver<Progress>, at: usize },
    Rest(Body),
    Done,
}

enum Next {
    Piece(Bytes),
    End(End),
}

impl Listener {
    async fn next(self) -> (Option<Heard>, Self) {
        match self {
            Self::Live { mut progress, at } => {
                let next = match progress
                    .wait_for(|progress| progress.pieces.len() > at || progress.end.is_some())
                    .await
                {
                    Ok(progress) => match progress.pieces.get(at) {
                        Some(piece) => Next::Piece(piece.clone()),
                        None => Next::End(progress.end.clone().unwrap_or(End::Broken)),
                    },
                    Err(_) => Next::End(End::Broken),
                };
                match next {
                    Next::Piece(piece) => {
                        (Some(Ok(Frame::data(piece))), Self::Live { progress, at: at + 1 })
                    }
                    Next::End(End::Whole(trailers)) => {
                        (trailers.map(|trailers| Ok(Frame::trailers(trailers))), Self::Done)
                    }
                    Next::End(End::Broken) => (Some(Err(broken())), Self::Done),
                    Next::End(End::Rest(rest)) => {
                        let rest = rest.lock().unwrap_or_else(PoisonError::into_inner).take();
                        match rest {
                            Some(rest) => Box::pin(Self::Rest(rest).next()).await,
                            None => (Some(Err(broken())), Self::Done),
                        }
                    }
                }
            }
            Self::Rest(mut body) => match body.frame().await {
                Some(Ok(frame)) => (Some(Ok(frame)), Self::Rest(body)),
                Some(Err(error)) => (Some(Err(std::io::Error::other(error))), Self::Done),
                None => (None, Self::Done),
            },
            Self::Done => (None, Self::Done),
        }
    }
}

fn broken() -> std::io::Error {
    std::io::Error::other("the reply broke off")
}
