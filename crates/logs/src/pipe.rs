//! From the event to the line: a bounded queue, and one thread behind it that masks, writes the line in
//! both its forms, and owns the buffer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use chrono::{DateTime, Utc};
use loom_core::Clock;
use metrics::counter;

use crate::{
    Buffer,
    layer::{Happened, LogLayer},
    render::{self, Form},
    ring::Line,
    values::Names,
};

/// So many events, and so many bytes of them, may wait for the thread; more are dropped and counted.
const MOST_WAITING: usize = 8_192;
const MOST_BYTES: usize = 16 << 20;
/// So much later than it happened a line may be seen.
const GATHER: Duration = Duration::from_millis(5);
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Where finished lines go; it must not wait.
pub type Out = Box<dyn FnMut(&[u8]) + Send>;

/// The near end of the queue.
#[derive(Clone)]
pub(crate) struct Inlet {
    queue: SyncSender<Message>,
    state: Arc<State>,
    clock: Clock,
}

#[derive(Default)]
struct State {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

enum Message {
    Event(Box<Happened>),
    /// Answered when all before it is through.
    Flush(SyncSender<()>),
}

impl Inlet {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub(crate) fn put(&self, happened: Happened) {
        let len = happened.len();
        if self.state.bytes.fetch_add(len, Ordering::Relaxed) + len <= MOST_BYTES
            && self.queue.try_send(Message::Event(Box::new(happened))).is_ok()
        {
            return;
        }
        self.state.bytes.fetch_sub(len, Ordering::Relaxed);
        self.state.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits for a layer's lines.
pub struct Flusher(SyncSender<Message>);

impl Flusher {
    /// Returns when what was logged until now has been handed over, or after a few seconds.
    pub fn flush(&self) {
        let (done, told) = sync_channel(1);
        if put_flush(&self.0, done) {
            let _ = told.recv_timeout(FLUSH_WITHIN);
        }
    }
}

fn put_flush(queue: &SyncSender<Message>, done: SyncSender<()>) -> bool {
    let mut message = Message::Flush(done);
    for _ in 0..200 {
        match queue.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) => message = back,
            Err(TrySendError::Disconnected(_)) => return false,
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

impl LogLayer {
    /// A layer that fills `buffer` and writes lines of this form to `out`. Its thread ends with it and
    /// its flusher.
    pub fn start(buffer: Buffer, clock: Clock, form: Form, out: Out) -> (Self, Flusher) {
        let (queue, events) = sync_channel(MOST_WAITING);
        let state = Arc::new(State::default());
        let pipe = Pipe {
            events,
            state: Arc::clone(&state),
            buffer,
            clock: clock.clone(),
            form,
            out,
            names: Names::default(),
            text: String::new(),
        };
        // Without the thread nothing takes from the queue, and all is counted as dropped.
        drop(thread::Builder::new().name("log".to_owned()).spawn(move || pipe.run()));
        let flusher = Flusher(queue.clone());
        (Self::new(Inlet { queue, state, clock }), flusher)
    }
}

struct Pipe {
    events: Receiver<Message>,
    state: Arc<State>,
    buffer: Buffer,
    clock: Clock,
    form: Form,
    out: Out,
    names: Names,
    /// Lines for `out`.
    text: String,
}

impl Pipe {
    fn run(mut self) {
        while let Ok(first) = self.events.recv() {
            // Once awake, wait for company: to be woken for each line costs more than the line.
            if matches!(first, Message::Event(_)) {
                thread::sleep(GATHER);
            }
            self.batch(first);
        }
    }

    fn batch(&mut self, first: Message) {
        let redactor = loom_redact::shared();
        let mut next = self.buffer.next_id();
        let (mut lines, mut flushed) = (Vec::new(), Vec::new());
        let mut message = Some(first);
        let mut count = 0;
        while let Some(one) = message {
            match one {
                Message::Event(mut happened) => {
                    self.state.bytes.fetch_sub(happened.len(), Ordering::Relaxed);
                    happened.values.redact(&redactor, &mut self.names);
                    for span in &happened.spans {
                        span.redacted.get_or_init(|| {
                            let mut values = span.values.clone();
                            values.redact(&redactor, &mut self.names);
                            values
                        });
                    }
                    self.form.write(&happened, &mut self.text);
                    if !render::is_about_watching(&happened) {
                        lines.push(Line::new(next, self.buffer.origin(), &happened));
                        next += 1;
                    }
                }
                Message::Flush(done) => flushed.push(done),
            }
            count += 1;
            message = if count < MOST_WAITING { self.events.try_recv().ok() } else { None };
        }
        let dropped = self.state.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            counter!("loom_log_lines_dropped_total", "at" => "queue").increment(dropped);
            self.form.write_dropped(self.clock.now(), dropped, &mut self.text);
        }
        // Dropped ones take ids, so that a reader sees the hole.
        self.buffer.extend(lines, next + dropped, dropped);
        (self.out)(self.text.as_bytes());
        self.text.clear();
        self.text.shrink_to(1 << 20);
        for done in flushed {
            let _ = done.try_send(());
        }
    }
}
