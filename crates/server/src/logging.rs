//! The process's log: which lines, and the standard stream behind the layer that masks them.

use std::{
    backtrace::Backtrace,
    io::{self, IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    thread,
};

use loom_core::Clock;
use loom_logs::{Buffer, Flusher, Form, LogLayer};
use metrics::counter;
use tracing_subscriber::{
    filter::targets::Targets, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// A reader of our output that is this far behind loses what comes.
const MAX_BEHIND: usize = 4 << 20;

/// Where the log goes.
#[derive(Clone, Copy, Debug, Default)]
pub enum Stream {
    #[default]
    Out,
    /// For a command whose answer is what is on standard output, a key for instance.
    Error,
}

impl Stream {
    fn is_terminal(self) -> bool {
        match self {
            Self::Out => io::stdout().is_terminal(),
            Self::Error => io::stderr().is_terminal(),
        }
    }

    fn write(self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Out => {
                let mut out = io::stdout().lock();
                out.write_all(lines).and_then(|()| out.flush())
            }
            Self::Error => io::stderr().lock().write_all(lines),
        }
    }
}

/// Sets the process's log up. A second call changes nothing.
pub fn start(log: &Log, stream: Stream) {
    static STARTED: OnceLock<()> = OnceLock::new();
    if STARTED.set(()).is_err() {
        return;
    }
    let filter: Targets = log.filter.parse().unwrap_or_else(|_| Targets::new());
    let form = match log.format {
        LogFormat::Json => Form::Json,
        LogFormat::Pretty => {
            Form::Pretty { colours: stream.is_terminal() && std::env::var_os("NO_COLOR").is_none() }
        }
    };
    let output = Output::start(stream);
    let write = Box::new(move |lines: &[u8]| output.put(lines));
    let (lines, flusher) = LogLayer::start(Buffer::of_process(), Clock::system(), form, write);
    let _ = FLUSHER.set(flusher);
    // Over all of it, not `lines.with_filter(filter)`: a layer's own filter drops a thread's next line
    // after somebody (sqlx, for each statement) has asked whether another one would be written.
    let _ = registry().with(lines).with(filter).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or("a value that is no text");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = Backtrace::force_capture();
        // Masked, like all that is logged; the hook of the standard library writes as it comes.
        tracing::error!(
            target: "loom_server::panic", panic = what, place, %backtrace, "a part of the server panicked"
        );
    }));
}

/// Writes what has been logged until now.
pub(crate) fn flush() {
    if let Some(flusher) = FLUSHER.get() {
        flusher.flush();
    }
    if let Some(output) = OUTPUT.get() {
        output.write_out();
    }
}

static FLUSHER: OnceLock<Flusher> = OnceLock::new();
static OUTPUT: OnceLock<Output> = OnceLock::new();

/// A standard stream behind a buffer that a thread empties: nobody waits for a write.
#[derive(Clone, Default)]
struct Output(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stream: Stream,
    waiting: Mutex<Vec<u8>>,
    some: Condvar,
    /// Held while writing, so that batches keep their order.
    out: Mutex<()>,
}

impl Output {
    fn start(stream: Stream) -> Self {
        let made = || Self(Arc::new(Shared { stream, ..Shared::default() }));
        let output = OUTPUT.get_or_init(made).clone();
        let writer = output.clone();
        let spawned = thread::Builder::new().name("log-output".to_owned()).spawn(move || {
            loop {
                let waiting = writer.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                drop(writer.0.some.wait_while(waiting, |waiting| waiting.is_empty()));
                writer.write_out();
            }
        });
        // Without the thread nothing comes before `flush`.
        drop(spawned);
        output
    }

    fn write_out(&self) {
        let _order = self.0.out.lock().unwrap_or_else(PoisonError::into_inner);
        let batch =
            std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        // Nobody reads it: there is nobody to tell either.
        let _ = self.0.stream.write(&batch);
    }

    /// Takes whole lines.
    fn put(&self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() + lines.len() > MAX_BEHIND {
            drop(waiting);
            let lost = lines.iter().filter(|byte| **byte == b'\n').count();
            counter!("loom_log_lines_dropped_total", "at" => "stdout").increment(lost as u64);
            return;
        }
        waiting.extend_from_slice(lines);
        drop(waiting);
        self.0.some.notify_one();
    }
}
