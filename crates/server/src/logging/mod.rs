//! Log lines on standard output: for people on a terminal, JSON otherwise.

mod json;

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use loom_core::Clock;
use tracing_subscriber::{
    Layer,
    filter::targets::Targets,
    fmt::{self, MakeWriter, format::JsonFields},
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

use self::json::JsonLines;
use crate::config::{Log, LogFormat};

/// So much later than it happened a line may be seen.
const GATHER: Duration = Duration::from_millis(5);
/// A reader of our output that is this far behind makes us wait for it.
const MAX_BEHIND: usize = 4 << 20;

/// Sets the process's log up. A second call changes nothing.
pub(crate) fn start(log: &Log) {
    let filter: Targets = log.filter.parse().unwrap_or_else(|_| Targets::new());
    let writer = Lines::start();
    let lines = match log.format {
        LogFormat::Pretty => fmt::layer().with_target(false).with_writer(writer).boxed(),
        LogFormat::Json => fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines(Clock::system()))
            .with_writer(writer)
            .boxed(),
    };
    // Over all of it, not `lines.with_filter(filter)`: a layer's own filter drops a thread's next line
    // after somebody (sqlx, for each statement) has asked whether another one would be written.
    let _ = registry().with(lines).with(filter).try_init();
}

/// Writes what has been handed over since the last time.
pub(crate) fn flush() {
    if let Some(lines) = LINES.get() {
        lines.write_out();
    }
}

static LINES: std::sync::OnceLock<Lines> = std::sync::OnceLock::new();

/// Standard output behind a buffer that a thread empties: a request never waits for a write, and
/// under load many lines go with one.
#[derive(Clone, Default)]
struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Vec<u8>>,
    some: Condvar,
    /// Held while writing, so that batches keep their order.
    out: Mutex<()>,
}

impl Lines {
    fn start() -> Self {
        let lines = LINES.get_or_init(Self::default).clone();
        let writer = lines.clone();
        let spawned = thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                let waiting = writer.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let woken = writer.0.some.wait_while(waiting, |waiting| waiting.is_empty());
                drop(woken);
                // Once awake, wait for company: to be woken for each line costs more than the line.
                thread::sleep(GATHER);
                writer.write_out();
            }
        });
        // Without the thread, `write` writes out by itself once the buffer is full.
        drop(spawned);
        lines
    }

    fn write_out(&self) {
        let _order = self.0.out.lock().unwrap_or_else(PoisonError::into_inner);
        let batch =
            std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut out = io::stdout().lock();
        // Nobody reads it: there is nobody to tell either.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = waiting.is_empty();
        waiting.extend_from_slice(line);
        let full = waiting.len() > MAX_BEHIND;
        drop(waiting);
        if full {
            self.write_out();
        } else if was_empty {
            self.0.some.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
