//! Keyset pages: `?limit=&cursor=` in, `next_cursor` out. Never OFFSET.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, Result, clock::is_storable};

pub const DEFAULT_LIMIT: u16 = 50;
pub const MAX_LIMIT: u16 = 200;

/// The query of every list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many items, 1 to 200; 50 when absent.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u16>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// The number of items asked for. Fetch one more to learn whether there is a next page.
    pub fn limit(&self) -> Result<usize> {
        match self.limit {
            None => Ok(usize::from(DEFAULT_LIMIT)),
            Some(limit @ 1..=MAX_LIMIT) => Ok(usize::from(limit)),
            Some(_) => Err(Error::invalid("limit", format!("is 1 to {MAX_LIMIT}"))),
        }
    }

    /// The position that the cursor holds; `kind` names the list, so that a cursor of another one
    /// (or of the same with other filters) is refused.
    pub fn after<T: DeserializeOwned>(&self, kind: &str) -> Result<Option<T>> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad_cursor())?;
        let (of, position): (String, T) =
            serde_json::from_slice(&json).map_err(|_| bad_cursor())?;
        if of == kind { Ok(Some(position)) } else { Err(bad_cursor()) }
    }

    /// As [`PageQuery::after`], for a list in the order of time and id.
    pub fn after_time<Id: DeserializeOwned>(
        &self,
        kind: &str,
    ) -> Result<Option<(DateTime<Utc>, Id)>> {
        let position: Option<(DateTime<Utc>, Id)> = self.after(kind)?;
        if position.as_ref().is_some_and(|(at, _)| !is_storable(*at)) {
            return Err(bad_cursor());
        }
        Ok(position)
    }
}

fn bad_cursor() -> Error {
    Error::malformed(
        "invalid_cursor",
        "`cursor` is not one that this list gave out; leave it away to start anew",
    )
}

/// Cuts a list fetched with `limit + 1` to its page and makes the cursor of the next.
pub fn cut<I, T: Serialize>(
    mut items: Vec<I>,
    limit: usize,
    kind: &str,
    position: impl Fn(&I) -> T,
) -> (Vec<I>, Option<String>) {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).and_then(|last| {
        let json = serde_json::to_vec(&(kind, position(last))).ok()?;
        Some(URL_SAFE_NO_PAD.encode(json))
    });
    (items, next)
}
