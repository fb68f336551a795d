//! Badges: drawn once a minute at most, however many pages show them.

use std::{sync::Arc, time::Duration};

use loom_core::Result;
use moka::future::Cache;

use crate::{
    Crons,
    model::{Activity, Health},
    store,
};

const MAX_AGE: Duration = Duration::from_secs(60);
const MOST_KEPT: u64 = 10_000;
/// Of a character, in the font that is most likely there.
const WIDTH: usize = 7;
const SLUG_MAX: usize = 40;

pub(crate) struct Badges(Cache<String, Arc<str>>);

impl Badges {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST_KEPT).time_to_live(MAX_AGE).build())
    }
}

impl Crons {
    pub(crate) async fn badge(&self, key: &str) -> Result<Option<Arc<str>>> {
        if let Some(svg) = self.badges.0.get(key).await {
            return Ok(Some(svg));
        }
        let pool = &self.deps.pool;
        let Some(monitor) = store::monitors::by_badge_key(pool, key).await? else {
            return Ok(None);
        };
        let mut db = pool.acquire().await?;
        let mut states = store::states::of(&mut db, monitor.org, &[monitor.id.0]).await?;
        let states = states.remove(&monitor.id).unwrap_or_default();
        let view = monitor.view(&states, "", false, self.deps.clock.now());
        let (word, color) = match (view.status, view.health) {
            (Activity::Paused, _) => ("paused", "#9f9f9f"),
            (_, Health::Healthy) => ("up", "#2c974b"),
            (_, Health::Late) => ("late", "#b08800"),
            (_, Health::Unknown) => ("unknown", "#9f9f9f"),
            (_, Health::Failing) => ("failing", "#cf222e"),
            (_, Health::Missed) => ("missed", "#cf222e"),
            (_, Health::Timeout) => ("timeout", "#cf222e"),
        };
        let svg: Arc<str> = draw(loom_core::text::cut(&monitor.slug, SLUG_MAX), word, color).into();
        self.badges.0.insert(key.to_owned(), Arc::clone(&svg)).await;
        Ok(Some(svg))
    }
}

/// A slug holds nothing that would have to be escaped.
fn draw(slug: &str, word: &str, color: &str) -> String {
    let left = slug.len() * WIDTH + 10;
    let right = word.len() * WIDTH + 10;
    let (width, middle_left, middle_right) = (left + right, left / 2, left + right / 2);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"20\" role=\"img\" \
         aria-label=\"{slug}: {word}\"><title>{slug}: {word}</title>\
         <rect width=\"{left}\" height=\"20\" fill=\"#444\"/>\
         <rect x=\"{left}\" width=\"{right}\" height=\"20\" fill=\"{color}\"/>\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
         <text x=\"{middle_left}\" y=\"14\">{slug}</text><text x=\"{middle_right}\" y=\"14\">{word}</text></g></svg>"
    )
}
