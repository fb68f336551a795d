//! The newest lines of this process, bounded by bytes, with ids that tell when some are missing.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::SecondsFormat;
use tokio::sync::watch;
use tracing::Level;

use crate::{
    layer::Happened,
    render::{escaped, member, quoted},
    values::Values,
};

pub(crate) const DEFAULT_CAPACITY: usize = 16 << 20;

/// Which process the lines are of.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Anew at each start: ids of another start say nothing here.
    boot: Arc<str>,
    replica: Arc<str>,
}

/// Where a line is: in text `<start of the process>-<number>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineId {
    pub(crate) boot: String,
    pub(crate) number: u64,
}

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.boot, self.number)
    }
}

impl FromStr for LineId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (boot, number) = text.split_once('-').ok_or(())?;
        if boot.len() != 8 || !boot.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        Ok(Self { boot: boot.to_owned(), number: number.parse().map_err(|_| ())? })
    }
}

/// One line, masked and written.
pub(crate) struct Line {
    pub(crate) id: u64,
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    pub(crate) request_id: Option<Box<str>>,
    /// The entry as JSON.
    pub(crate) json: Box<str>,
    /// Where in it the message is, and the fields.
    message: (usize, usize),
    fields: (usize, usize),
}

impl Line {
    pub(crate) fn new(id: u64, origin: &Origin, happened: &Happened) -> Self {
        let (level, target) = (*happened.metadata.level(), happened.metadata.target());
        let spans =
            || happened.spans.iter().filter_map(|span| span.redacted.get()).flat_map(Values::iter);
        // The nearest one that has it.
        let request_id = happened.values.get("request_id").or_else(|| {
            let of_spans = happened.spans.iter().rev().filter_map(|span| span.redacted.get());
            of_spans.filter_map(|values| values.get("request_id")).next()
        });
        let at = happened.at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut json = format!(
            r#"{{"id":"{}-{id}","timestamp":"{at}","level":"{}","target":"#,
            origin.boot,
            level.as_str().to_ascii_lowercase()
        );
        quoted(&mut json, target);
        json.push_str(",\"message\":\"");
        let start = json.len();
        escaped(&mut json, happened.values.get("message").unwrap_or_default());
        let message = (start, json.len());
        json.push_str("\",\"fields\":{");
        let start = json.len();
        let mut told: Vec<&str> = vec!["message", "request_id"];
        for value in happened.values.iter().chain(spans()) {
            if !told.contains(&value.name) {
                told.push(value.name);
                member(&mut json, value.name, value.text, value.bare);
            }
        }
        // Each member begins with a comma.
        if json.len() > start {
            json.remove(start);
        }
        let fields = (start, json.len());
        json.push_str("},\"span\":");
        let names: Vec<_> = happened.spans.iter().map(|span| span.name).collect();
        if names.is_empty() {
            json.push_str("null");
        } else {
            quoted(&mut json, &names.join(":"));
        }
        json.push_str(",\"request_id\":");
        match request_id {
            Some(id) => quoted(&mut json, id),
            None => json.push_str("null"),
        }
        json.push_str(",\"replica\":");
        quoted(&mut json, &origin.replica);
        json.push('}');
        let request_id = request_id.map(Into::into);
        Self { id, level, target, request_id, json: json.into(), message, fields }
    }

    /// The message and the fields, as JSON has them, and the request.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let parts = [self.message, self.fields];
        parts
            .into_iter()
            .filter_map(|(from, to)| self.json.get(from..to))
            .chain(self.request_id.as_deref())
    }

    fn len(&self) -> usize {
        // With what the allocator adds.
        size_of::<Self>() + 64 + self.json.len() + self.request_id.as_ref().map_or(0, |id| id.len())
    }
}

/// The lines of this process. Cheap to clone.
#[derive(Clone)]
pub struct Buffer(Arc<Shared>);

struct Shared {
    origin: Origin,
    ring: Mutex<Ring>,
    /// The id of the newest line.
    newest: watch::Sender<u64>,
}

struct Ring {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    capacity: usize,
    next: u64,
    dropped: u64,
    last_dropped: Option<Instant>,
}

/// What is read at once.
pub(crate) struct Piece {
    pub(crate) lines: Vec<Arc<Line>>,
    /// All up to this id was looked at.
    pub(crate) upto: u64,
}

impl Buffer {
    pub fn new(replica: &str, capacity: usize) -> Self {
        let boot = format!("{:08x}", rand::random::<u32>()).into();
        let ring = Ring {
            lines: VecDeque::new(),
            bytes: 0,
            capacity,
            next: 1,
            dropped: 0,
            last_dropped: None,
        };
        Self(Arc::new(Shared {
            origin: Origin { boot, replica: replica.into() },
            ring: Mutex::new(ring),
            newest: watch::Sender::new(0),
        }))
    }

    /// The one that the process's log fills.
    pub fn of_process() -> Self {
        static BUFFER: LazyLock<Buffer> =
            LazyLock::new(|| Buffer::new(&crate::replica_name(), DEFAULT_CAPACITY));
        BUFFER.clone()
    }

    /// How many bytes of lines are kept.
    pub fn set_capacity(&self, capacity: usize) {
        let mut ring = self.ring();
        ring.capacity = capacity;
        ring.shrink();
    }

    /// Held only to copy a few pointers; nobody who serves a request takes it.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.0.origin
    }

    pub(crate) fn replica(&self) -> &str {
        &self.0.origin.replica
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.ring().next
    }

    pub(crate) fn id(&self, number: u64) -> LineId {
        LineId { boot: self.0.origin.boot.to_string(), number }
    }

    /// The number of a line of this process, none of another's.
    pub(crate) fn number(&self, id: &LineId) -> Option<u64> {
        (*id.boot == *self.0.origin.boot).then_some(id.number)
    }

    /// Adds lines; `next` is the id of the one to come. Ids in between are of lines that were dropped.
    pub(crate) fn extend(&self, lines: Vec<Line>, next: u64, dropped: u64) {
        let mut ring = self.ring();
        if dropped > 0 {
            ring.dropped += dropped;
            ring.last_dropped = Some(Instant::now());
        }
        for line in lines {
            ring.bytes += line.len();
            ring.lines.push_back(Arc::new(line));
        }
        let any = next > ring.next;
        ring.next = ring.next.max(next);
        ring.shrink();
        drop(ring);
        if any {
            self.0.newest.send_replace(next - 1);
        }
    }

    /// How many lines were dropped, and whether some were within this time.
    pub(crate) fn dropped(&self, lately: Duration) -> (u64, bool) {
        let ring = self.ring();
        (ring.dropped, ring.last_dropped.is_some_and(|at| at.elapsed() < lately))
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }

    /// At most `most` lines behind `after`, from the oldest of them.
    pub(crate) fn after(&self, after: u64, most: usize) -> Piece {
        let ring = self.ring();
        let from = ring.lines.partition_point(|line| line.id <= after);
        let lines: Vec<_> = ring.lines.range(from..).take(most).cloned().collect();
        let all = from + lines.len() == ring.lines.len();
        let last = lines.last().map_or(after, |line| line.id);
        Piece { upto: if all { last.max(ring.next - 1) } else { last }, lines }
    }

    /// All lines, newest last; bytes kept, and at most.
    pub(crate) fn all(&self) -> (Vec<Arc<Line>>, usize, usize) {
        let ring = self.ring();
        (ring.lines.iter().cloned().collect(), ring.bytes, ring.capacity)
    }
}

impl Ring {
    fn shrink(&mut self) {
        while self.bytes > self.capacity {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.len();
        }
    }
}
