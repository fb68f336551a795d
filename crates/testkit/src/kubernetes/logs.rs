//! What containers said.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use chrono::{DateTime, SecondsFormat, Utc};
use futures::{Stream, stream};
use tokio::sync::watch;

#[derive(Default)]
struct Text {
    lines: Vec<(DateTime<Utc>, String)>,
    /// Lines that a rotation took away.
    gone: usize,
    over: bool,
}

pub(super) struct Log {
    text: Mutex<Text>,
    /// Counts what happened.
    changed: watch::Sender<u64>,
    /// Counts the cuts.
    cuts: watch::Sender<u64>,
    followers: AtomicUsize,
}

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub(super) follow: bool,
    pub(super) timestamps: bool,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) tail: Option<usize>,
    pub(super) limit: Option<usize>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            text: Mutex::default(),
            changed: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            followers: AtomicUsize::new(0),
        }
    }
}

impl Log {
    pub(super) fn say(&self, at: DateTime<Utc>, line: &str) {
        self.text.lock().unwrap().lines.push((at, line.to_owned()));
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn rotate(&self) {
        let mut text = self.text.lock().unwrap();
        text.gone += text.lines.len();
        text.lines.clear();
        drop(text);
        self.cut();
    }

    pub(super) fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    pub(super) fn followers(&self) -> usize {
        self.followers.load(Ordering::SeqCst)
    }

    /// Nothing more will be said.
    pub(super) fn end(&self) {
        self.text.lock().unwrap().over = true;
        self.changed.send_modify(|count| *count += 1);
    }

    /// The lines as bytes; ends when the container has, or when it is cut.
    pub(super) fn read(self: &Arc<Self>, ask: Ask) -> impl Stream<Item = String> + Send + use<> {
        let start = {
            let text = self.text.lock().unwrap();
            text.gone + ask.tail.map_or(0, |tail| text.lines.len().saturating_sub(tail))
        };
        // Kubernetes cuts the time to its second on the way to the kubelet.
        let since = ask.since.map(|at| at.timestamp());
        let reader = Reader {
            changed: self.changed.subscribe(),
            cuts: self.cuts.subscribe(),
            cut: *self.cuts.borrow(),
            at: start,
            left: ask.limit.unwrap_or(usize::MAX),
            _follows: ask.follow.then(|| Follows::new(self)),
            log: Arc::clone(self),
        };
        stream::unfold(reader, move |mut reader| {
            let ask = ask.clone();
            async move {
                loop {
                    reader.changed.borrow_and_update();
                    let (lines, over) = {
                        let text = reader.log.text.lock().unwrap();
                        let from = reader.at.saturating_sub(text.gone).min(text.lines.len());
                        let until = (from + 1000).min(text.lines.len());
                        reader.at = text.gone + until;
                        let mut lines = String::new();
                        for (at, line) in &text.lines[from..until] {
                            if since.is_some_and(|since| at.timestamp() < since) {
                                continue;
                            }
                            if ask.timestamps {
                                lines.push_str(&at.to_rfc3339_opts(SecondsFormat::Nanos, true));
                                lines.push(' ');
                            }
                            lines.push_str(line);
                            lines.push('\n');
                        }
                        let is_all = until == text.lines.len();
                        if lines.is_empty() && !is_all {
                            continue;
                        }
                        (lines, is_all && (text.over || !ask.follow))
                    };
                    if !lines.is_empty() {
                        let mut end = lines.len().min(reader.left);
                        while !lines.is_char_boundary(end) {
                            end -= 1;
                        }
                        reader.left -= end;
                        return (end > 0).then(|| (lines[..end].to_owned(), reader));
                    }
                    if over || *reader.cuts.borrow() != reader.cut {
                        return None;
                    }
                    if until_more(&mut reader).await {
                        return None;
                    }
                }
            }
        })
    }
}

/// Is it over?
async fn until_more(reader: &mut Reader) -> bool {
    let cut = reader.cut;
    tokio::select! {
        more = reader.changed.changed() => more.is_err(),
        _ = reader.cuts.wait_for(|count| *count != cut) => true,
    }
}

struct Reader {
    log: Arc<Log>,
    changed: watch::Receiver<u64>,
    cuts: watch::Receiver<u64>,
    cut: u64,
    at: usize,
    left: usize,
    _follows: Option<Follows>,
}

struct Follows(Arc<Log>);

impl Follows {
    fn new(log: &Arc<Log>) -> Self {
        log.followers.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(log))
    }
}

impl Drop for Follows {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::SeqCst);
    }
}
