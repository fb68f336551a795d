//! All pages, read, rendered and put into order once.

use std::collections::BTreeMap;

use bytes::Bytes;
use loom_core::text::cut;

use crate::{
    front_matter::{self, FrontMatter},
    render::{self, Heading},
};

/// A page of the guide.
#[derive(Debug)]
pub(crate) struct Page {
    /// From `docs/`, without `.md`.
    pub(crate) path: String,
    pub(crate) head: FrontMatter,
    pub(crate) source: Bytes,
    pub(crate) html: String,
    pub(crate) text: String,
    pub(crate) headings: Vec<Heading>,
}

#[derive(Debug)]
pub(crate) struct Library {
    /// By category, then by order.
    pub(crate) pages: Vec<Page>,
    /// What is wrong with pages, each with its path.
    pub(crate) faults: Vec<String>,
    by_path: BTreeMap<String, usize>,
}

impl Library {
    /// From paths and sources. A page without a sound head is there nevertheless, under its own name.
    pub(crate) fn new(sources: &[(&str, &'static str)]) -> Self {
        let mut faults = Vec::new();
        let mut pages: Vec<Page> = sources
            .iter()
            .map(|(path, source)| {
                let (head, body) = front_matter::parse(source).unwrap_or_else(|fault| {
                    faults.push(format!("{path}: {fault}"));
                    (nameless(path), *source)
                });
                let rendered = render::render(path, body);
                Page {
                    path: (*path).to_owned(),
                    head,
                    source: Bytes::from_static(source.as_bytes()),
                    html: rendered.html,
                    text: rendered.text,
                    headings: rendered.headings,
                }
            })
            .collect();
        // A category stands where the first of its pages does.
        let mut first: BTreeMap<String, u32> = BTreeMap::new();
        for page in &pages {
            let order = first.entry(page.head.category.clone()).or_insert(page.head.order);
            *order = page.head.order.min(*order);
        }
        pages.sort_by_cached_key(|page| {
            let FrontMatter { category, order, .. } = &page.head;
            (first.get(category).copied(), category.clone(), *order, page.path.clone())
        });
        let by_path = pages.iter().enumerate().map(|(at, page)| (page.path.clone(), at)).collect();
        Self { pages, faults, by_path }
    }

    pub(crate) fn page(&self, path: &str) -> Option<&Page> {
        self.pages.get(*self.by_path.get(path)?)
    }

    /// The categories in order, each with its pages.
    pub(crate) fn categories(&self) -> impl Iterator<Item = (&str, &[Page])> {
        self.pages.chunk_by(|a, b| a.head.category == b.head.category).filter_map(|pages| {
            let first = pages.first()?;
            Some((first.head.category.as_str(), pages))
        })
    }
}

fn nameless(path: &str) -> FrontMatter {
    FrontMatter {
        title: cut(path, 80).to_owned(),
        summary: String::new(),
        category: "other".to_owned(),
        order: u32::MAX,
        tags: Vec::new(),
    }
}
