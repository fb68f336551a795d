//! The user guide: its pages and a search over them, from inside the binary. Nothing here reads files.

mod front_matter;
mod html;
mod http;
mod index;
mod library;
mod negotiate;
mod query;
mod render;
mod search;
mod snippet;
mod words;

use std::{collections::BTreeMap, sync::Arc};

use axum::routing::get;
use bytes::Bytes;
use loom_core::health::{Check, Component, Status};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use front_matter::{FrontMatter, parse as parse_front_matter};
pub use http::DocsHits;
pub use search::DocsHit;

use crate::{http::Stored, index::Index, library::Library};

/// Every page of `docs/`: its path without `.md`, and its source.
pub const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// The feature, as the server holds it.
#[derive(Clone)]
pub struct Docs(Arc<Inner>);

struct Inner {
    library: Library,
    index: Index,
    /// The pages as they are sent, by path.
    pages: BTreeMap<String, Stored>,
    overview: Stored,
    style: Stored,
}

impl Default for Docs {
    fn default() -> Self {
        Self::new()
    }
}

impl Docs {
    /// The pages that the binary was built with, rendered and indexed.
    pub fn new() -> Self {
        Self::of(PAGES)
    }

    /// Other pages, for tests.
    pub fn of(pages: &[(&str, &'static str)]) -> Self {
        let library = Library::new(pages);
        for fault in &library.faults {
            tracing::warn!(fault, "a page of the guide has no sound front matter");
        }
        let index = Index::new(&library);
        let stored = library
            .pages
            .iter()
            .map(|page| (page.path.clone(), Stored::new(Bytes::from(html::page(&library, page)))));
        let pages = stored.collect();
        let overview = Stored::new(Bytes::from(html::index(&library)));
        let style = Stored::new(Bytes::from_static(include_bytes!("web/page.css")));
        Self(Arc::new(Inner { library, index, pages, overview, style }))
    }

    /// The best `limit` pages for `q`, best first; with an empty one all, in their order.
    pub fn search(&self, q: &str, category: Option<&str>, limit: usize) -> Vec<DocsHit> {
        search::search((&self.0.library, &self.0.index), q, category, limit)
    }

    /// All routes under `/docs`. They are for everybody.
    pub fn routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(http::get_docs))
            .routes(routes!(http::search_docs))
            .routes(routes!(http::get_docs_page))
            .route("/docs/", get(http::get_docs))
            .route("/docs/page.css", get(http::get_style))
            .route("/docs/{folder}/{*page}", get(http::get_docs_page_in_folder))
            .with_state(self.clone())
    }

    /// Whether a page is found by its own title.
    pub fn health(&self) -> Check {
        let docs = self.clone();
        let probe = move || {
            let component = docs.component();
            async move { component }
        };
        Check::new("docs_index", probe)
    }

    fn component(&self) -> Component {
        let library = &self.0.library;
        let found = library.pages.first().is_some_and(|page| {
            self.search(&page.head.title, None, 50).iter().any(|h| h.path == page.path)
        });
        let component = if !found {
            Component::new(Status::Degraded).error("the search does not find what is there").code(
                "DOCS_INDEX_BROKEN",
                "The guide in this binary is not searchable; the pages themselves are under /docs. It is \
                 a fault of this build: report it with the version.",
            )
        } else if library.faults.is_empty() {
            Component::new(Status::Healthy)
        } else {
            Component::new(Status::Degraded).error("a page has no sound front matter; see the log").code(
                "DOCS_PAGE_FAULTY",
                "The log of the start names the page. It is a fault of this build; the page is served \
                 without its title.",
            )
        };
        component.with("pages", library.pages.len())
    }
}
