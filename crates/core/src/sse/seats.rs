//! How many may watch: of a server, and of one who watches.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::sync::watch;

use crate::{Error, Result};

const TRY_AGAIN: Duration = Duration::from_secs(30);

/// What streams there are, and how many of them at once.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// As `streams of threads`.
    pub streams: &'static str,
    /// The gauge of those that are open.
    pub gauge: &'static str,
    /// Of one server.
    pub most: usize,
    /// Of one person, service or weaver on it.
    pub most_of_one: usize,
    /// What to do instead, as `; or read …`; may be empty.
    pub instead: &'static str,
}

/// Who watches; by the name of their credential's holder.
#[derive(Clone, Debug)]
pub struct Seats(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    places: Places,
    by: Mutex<HashMap<String, usize>>,
    count: watch::Sender<usize>,
}

/// A watcher's place; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    who: String,
}

impl Seats {
    pub fn new(places: Places) -> Self {
        Self(Arc::new(Taken { places, by: Mutex::default(), count: watch::Sender::default() }))
    }

    /// How many watch; what is received changes with it.
    pub fn count(&self) -> watch::Receiver<usize> {
        self.0.count.subscribe()
    }

    /// # Errors
    /// 429 when there are too many, with what to do.
    pub fn sit(&self, who: String) -> Result<Seat> {
        let Places { streams, most, most_of_one, instead, .. } = self.0.places;
        let refused = |detail: String| {
            Err(Error::new(StatusCode::TOO_MANY_REQUESTS, "too_many_watchers", detail)
                .retry_after(TRY_AGAIN))
        };
        let mut by = self.0.by.lock().unwrap_or_else(PoisonError::into_inner);
        if by.get(&who).is_some_and(|count| *count >= most_of_one) {
            return refused(format!(
                "you follow {most_of_one} {streams} on this server already; close one{instead}"
            ));
        }
        if by.values().sum::<usize>() >= most {
            return refused(format!(
                "{most} {streams} are open on this server, which is the most; try again later{instead}"
            ));
        }
        *by.entry(who.clone()).or_default() += 1;
        self.changed(&by);
        Ok(Seat { seats: self.clone(), who })
    }

    fn changed(&self, by: &HashMap<String, usize>) {
        let count = by.values().sum::<usize>();
        self.0.count.send_replace(count);
        metrics::gauge!(self.0.places.gauge).set(count as f64);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut by = self.seats.0.by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                by.remove(&self.who);
            }
        }
        self.seats.changed(&by);
    }
}
