//! The routes: pages, their sources, the search. Everything but the search was made at the start.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use loom_core::{
    Error, Json, Path, Query, Result,
    error::{FieldError, Problem},
    text::cut,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::{Docs, html, negotiate::prefers, search::DocsHit};

const MAX_Q_BYTES: usize = 200;
const MAX_LIMIT: usize = 50;
const DEFAULT_LIMIT: usize = 20;

const HTML: &str = "text/html; charset=utf-8";
const MARKDOWN: &str = "text/markdown; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const CSP: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                   frame-ancestors 'none'; base-uri 'none'";

/// A body that never changes while the server runs, and its digest.
pub(crate) struct Stored {
    body: Bytes,
    etag: HeaderValue,
}

impl Stored {
    pub(crate) fn new(body: Bytes) -> Self {
        let digest = hex::encode(Sha256::digest(&body));
        // Weak: the same page compressed is another sequence of bytes.
        let etag = format!("W/\"{}\"", cut(&digest, 32));
        let etag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("W/\"\""));
        Self { body, etag }
    }

    /// The body, or 304 when the caller has it already.
    fn answer(&self, headers: &HeaderMap, kind: &'static str) -> Response {
        let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
            let value = value.to_str().unwrap_or_default();
            value.split(',').map(str::trim).any(|tag| {
                let same = |etag: &str| strong(etag) == strong(tag);
                tag == "*" || self.etag.to_str().is_ok_and(same)
            })
        });
        let mut response = if known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, kind)], self.body.clone()).into_response()
        };
        response.headers_mut().insert(header::ETAG, self.etag.clone());
        guarded(response)
    }
}

fn strong(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// With what keeps a page from doing more than being read.
fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The overview of all pages.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "get_docs",
    tag = "docs",
    responses(
        (status = 200, body = String, content_type = "text/html"),
        (status = 304, description = "as `If-None-Match` says"),
    ),
    security(()),
)]
pub(crate) async fn get_docs(State(docs): State<Docs>, headers: HeaderMap) -> Response {
    docs.0.overview.answer(&headers, HTML)
}

pub(crate) async fn get_style(State(docs): State<Docs>, headers: HeaderMap) -> Response {
    docs.0.style.answer(&headers, CSS)
}

/// A page of the guide; its Markdown when the path ends in `.md` or `Accept` prefers `text/markdown`.
#[utoipa::path(
    get,
    path = "/docs/{path}",
    operation_id = "get_docs_page",
    tag = "docs",
    params(("path" = String, Path, description = "As in a search's hit; may hold slashes.")),
    responses(
        (status = 200, content((String = "text/html"), (String = "text/markdown"))),
        (status = 304, description = "as `If-None-Match` says"),
        (status = 404, description = "a page of HTML for a browser", body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
pub(crate) async fn get_docs_page(
    State(docs): State<Docs>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    docs.page(&path, &headers)
}

pub(crate) async fn get_docs_page_in_folder(
    State(docs): State<Docs>,
    Path((folder, page)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    docs.page(&format!("{folder}/{page}"), &headers)
}

impl Docs {
    /// Looked up among the pages that there are: no path gets any further than that.
    fn page(&self, path: &str, headers: &HeaderMap) -> Response {
        let (path, as_source) = match path.strip_suffix(".md") {
            Some(path) => (path, true),
            None => (path, prefers(headers, "text/markdown", "text/html")),
        };
        let (Some(page), Some(stored)) = (self.0.library.page(path), self.0.pages.get(path)) else {
            return self.refuse(headers, Error::not_found("page"));
        };
        if as_source {
            return Stored::new(page.source.clone()).answer(headers, MARKDOWN);
        }
        stored.answer(headers, HTML)
    }

    /// A problem document, or for a browser the same to read.
    fn refuse(&self, headers: &HeaderMap, error: Error) -> Response {
        if !prefers(headers, "text/html", "application/json") {
            return error.into_response();
        }
        let title = error.status().canonical_reason().unwrap_or("Error");
        let page = html::problem(&self.0.library, title, error.detail());
        guarded((error.status(), [(header::CONTENT_TYPE, HTML)], page).into_response())
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchQuery {
    /// Words, and phrases in double quotes; at most 200 bytes. The last word may be the beginning of
    /// one, and a letter or two may be wrong. Empty: all pages, in order.
    #[serde(default)]
    q: String,
    /// Only pages of this category.
    category: Option<String>,
    /// 20 when absent.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50)]
    limit: Option<String>,
}

/// What was found, best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DocsHits {
    pub hits: Vec<DocsHit>,
}

/// Search the guide; as a page of HTML when `Accept` prefers `text/html`.
#[utoipa::path(
    get,
    path = "/docs/search",
    operation_id = "search_docs",
    tag = "docs",
    params(SearchQuery),
    responses(
        (status = 200, content((DocsHits = "application/json"), (String = "text/html"))),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(()),
)]
pub(crate) async fn search_docs(
    State(docs): State<Docs>,
    headers: HeaderMap,
    query: Result<Query<SearchQuery>>,
) -> Response {
    let found = query.and_then(|Query(query)| {
        let (category, limit) = docs.check(&query)?;
        let hits = docs.search(&query.q, category.as_deref(), limit);
        Ok((query, category, hits))
    });
    let (query, category, hits) = match found {
        Ok(found) => found,
        Err(error) => return docs.refuse(&headers, error),
    };
    if prefers(&headers, "text/html", "application/json") {
        let page = html::results(&docs.0.library, &query.q, category.as_deref(), &hits);
        return guarded(([(header::CONTENT_TYPE, HTML)], page).into_response());
    }
    guarded(Json(DocsHits { hits }).into_response())
}

impl Docs {
    /// Category and limit of a search that is within its bounds.
    fn check(&self, query: &SearchQuery) -> Result<(Option<String>, usize)> {
        let mut errors = Vec::new();
        let mut wrong = |path: &str, message: String| {
            errors.push(FieldError { path: path.to_owned(), message });
        };
        if query.q.len() > MAX_Q_BYTES {
            wrong("q", format!("may have {MAX_Q_BYTES} bytes, and has {}", query.q.len()));
        }
        // A form sends what is not chosen as empty.
        let category = query.category.clone().filter(|category| !category.is_empty());
        if let Some(category) = &category
            && !self.0.library.categories().any(|(name, _)| name == category)
        {
            let all: Vec<&str> = self.0.library.categories().map(|(name, _)| name).collect();
            wrong("category", format!("is none of {}", all.join(", ")));
        }
        let limit = match query.limit.as_deref().filter(|limit| !limit.is_empty()) {
            None => Some(DEFAULT_LIMIT),
            Some(text) => text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)),
        };
        if limit.is_none() {
            wrong("limit", format!("is a number from 1 to {MAX_LIMIT}"));
        }
        if !errors.is_empty() {
            return Err(Error::invalid_fields(errors));
        }
        Ok((category, limit.unwrap_or(DEFAULT_LIMIT)))
    }
}
