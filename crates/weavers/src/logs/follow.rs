//! Reads what a container says, over cut streams, and writes it down once.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{AsyncBufRead, AsyncBufReadExt as _};
use k8s_openapi::jiff::Timestamp;
use kube::api::LogParams;
use loom_core::{
    Error, Result,
    id::{OrgId, WeaverId},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Logs,
    line::{LONGEST, Line, Mask},
    store::{self, State},
};
use crate::{
    cluster::{Cluster, failed},
    model::Row,
    pod::CLONE,
    store as rows,
};

/// Until the cluster gives the first byte.
const OPENING: Duration = Duration::from_secs(15);
/// A stream that says nothing for so long may be dead: another is opened.
const SILENCE: Duration = Duration::from_secs(300);
/// Lines are written when there are so many bytes of them…
const CHUNK: usize = 64 * 1024;
/// …or when the last writing is so long ago.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// So long after a line more are waited for.
const GATHER: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A sign of life is written down no more often.
const ACTIVE_EVERY: Duration = Duration::from_secs(15);
/// Of the lines of one moment so many are told apart.
const DIGESTS: usize = 1000;

/// Reads the log of one weaver.
pub(super) struct Reader {
    logs: Logs,
    cluster: Cluster,
    id: WeaverId,
    org: OrgId,
    pod: String,
    state: Option<State>,
    lines: Vec<Line>,
    bytes: usize,
    written: Instant,
    active: Option<Instant>,
    mask: Mask,
}

/// How a stream ended.
enum Ended {
    /// By itself, or it was cut, after so many new lines.
    After(usize),
    /// There is no pod, or no such container.
    Gone,
}

impl Reader {
    pub(super) fn new(logs: Logs, cluster: Cluster, row: &Row) -> Self {
        Self {
            logs,
            cluster,
            id: row.id,
            org: row.org_id,
            pod: row.pod_name.clone(),
            state: None,
            lines: Vec::new(),
            bytes: 0,
            written: Instant::now(),
            active: None,
            mask: Mask::default(),
        }
    }

    /// Until it is told to stop, or the pod is gone.
    pub(super) async fn follow(
        mut self,
        container: &'static str,
        has_clone: bool,
        stop: CancellationToken,
    ) {
        if has_clone && self.rest_of_known(CLONE).await.is_err() {
            tracing::debug!(weaver = %self.id, "the log of the clone is read with the rest");
        }
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let read = tokio::select! {
                read = self.stream(container, true) => read,
                () = stop.cancelled() => break,
            };
            match read {
                Ok(Ended::Gone) => return,
                Ok(Ended::After(lines)) => {
                    // A container that has ended ends its streams at once, until it is read for the last time.
                    if lines > 0 || began.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, weaver = %self.id, "its log was cut; it goes on");
                    self.forget();
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => break,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if let Err(error) = self.flush().await {
            tracing::debug!(%error, weaver = %self.id, "the next to follow reads the last lines again");
        }
    }

    /// All that is there now, with a few tries.
    ///
    /// # Errors
    /// When it cannot be read or kept.
    pub(super) async fn rest(&mut self, container: &'static str) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..3 {
            match self.rest_of_known(container).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, weaver = %self.id, "its log could not be read to its end");
                }
            }
            self.forget();
            sleep(pause).await;
            pause *= 2;
        }
        self.rest_of_known(container).await
    }

    async fn rest_of_known(&mut self, container: &'static str) -> Result<()> {
        self.stream(container, false).await?;
        self.flush().await
    }

    /// What was read and not written is read again.
    fn forget(&mut self) {
        self.lines.clear();
        self.bytes = 0;
        self.state = None;
    }

    async fn stream(&mut self, container: &'static str, follow: bool) -> Result<Ended> {
        let state = match self.state.take() {
            Some(state) => state,
            None => store::state(&self.logs.pool, self.id).await?,
        };
        let mark = state.marks.get(container).cloned();
        self.state = Some(state);
        let since = mark.as_ref().map(|mark| Timestamp::from_second(mark.at.timestamp()));
        let wanted = LogParams {
            container: Some(container.to_owned()),
            follow,
            timestamps: true,
            since_time: since.transpose().map_err(Error::internal)?,
            ..LogParams::default()
        };
        let pods = self.cluster.pods();
        let opened = timeout(OPENING, pods.log_stream(&self.pod, &wanted)).await;
        let mut stream = match opened.map_err(|_| Error::internal("the cluster gives no log"))? {
            Ok(stream) => Box::pin(stream),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 400) => {
                // 400: not started (yet), or never was to be.
                return Ok(if status.code == 404 { Ended::Gone } else { Ended::After(0) });
            }
            Err(error) => return Err(failed(error)),
        };
        // Lines of the second that is read again; of the last moment those that are kept are told by their text.
        let mut known = mark;
        let mut last = known.as_ref().map_or_else(|| self.logs.clock.now(), |mark| mark.at);
        let (mut buffer, mut count) = (Vec::new(), 0);
        loop {
            let patience = if self.lines.is_empty() {
                SILENCE
            } else {
                GATHER.max(AT_MOST_EVERY.saturating_sub(self.written.elapsed()))
            };
            let more = match timeout(patience, next(&mut stream, &mut buffer)).await {
                // What is in the buffer stays there: the rest of the line comes yet.
                Err(_) if !self.lines.is_empty() => {
                    self.flush().await?;
                    continue;
                }
                Err(_) => return Ok(Ended::After(count)),
                Ok(more) => more.map_err(Error::internal)?,
            };
            // What was cut within a line is read whole the next time.
            if !more && (follow || buffer.is_empty()) {
                self.flush().await?;
                return Ok(Ended::After(count));
            }
            let mut line = Line::parse(&buffer, container, last);
            buffer.clear();
            last = line.at;
            if let Some(mark) = &mut known {
                if line.at < mark.at {
                    continue;
                }
                let digest = line.digest();
                if line.at == mark.at
                    && let Some(at) = mark.digests.iter().position(|one| *one == digest)
                {
                    mark.digests.swap_remove(at);
                    continue;
                }
                if line.at > mark.at {
                    known = None;
                }
            }
            self.note(container, line.at, line.digest());
            self.mask.apply(&mut line);
            self.bytes += line.bytes();
            self.lines.push(line);
            count += 1;
            let late = self.written.elapsed() >= AT_MOST_EVERY && self.lines.len() > 100;
            if self.bytes >= CHUNK || late {
                self.flush().await?;
            }
        }
    }

    /// The line is read.
    fn note(&mut self, container: &str, at: DateTime<Utc>, digest: u64) {
        let Some(state) = &mut self.state else { return };
        let mark = state.marks.entry(container.to_owned()).or_default();
        if at > mark.at {
            mark.at = at;
            mark.digests.clear();
        }
        if at == mark.at && mark.digests.len() < DIGESTS {
            mark.digests.push(digest);
        }
    }

    /// # Errors
    /// When nothing was written; what was read is then forgotten here.
    async fn flush(&mut self) -> Result<()> {
        self.written = Instant::now();
        if self.lines.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.lines);
        self.bytes = 0;
        let Some(mut state) = self.state.take() else { return Ok(()) };
        let permit = self.logs.writers.acquire().await.map_err(Error::internal)?;
        let (pool, most) = (&self.logs.pool, self.logs.most);
        let written = store::append(pool, self.id, &state, &lines, most).await;
        drop(permit);
        if !written? {
            return Err(Error::internal("another server follows this log"));
        }
        state.next_line += i64::try_from(lines.len()).unwrap_or_default();
        self.state = Some(state);
        let _ = self.logs.said.send(self.id);
        if self.active.is_none_or(|at| at.elapsed() >= ACTIVE_EVERY) {
            self.active = Some(Instant::now());
            let mut db = pool.acquire().await?;
            rows::list::touch(&mut db, self.org, self.id, self.logs.clock.now()).await?;
        }
        Ok(())
    }
}

/// Adds the rest of a line to the buffer, without what is beyond the longest; false at the end.
async fn next(
    stream: &mut (impl AsyncBufRead + Unpin),
    buffer: &mut Vec<u8>,
) -> std::io::Result<bool> {
    // With the time in front.
    const MOST: usize = LONGEST + 64;
    loop {
        let piece = stream.fill_buf().await?;
        if piece.is_empty() {
            return Ok(false);
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(piece.len(), |at| at + 1);
        let room = MOST.saturating_sub(buffer.len()).min(taken);
        buffer.extend_from_slice(piece.get(..room).unwrap_or_default());
        stream.consume_unpin(taken);
        if end.is_some() {
            if buffer.last() != Some(&b'\n') {
                buffer.push(b'\n');
            }
            return Ok(true);
        }
    }
}
