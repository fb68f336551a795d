//! One git process that serves one request: the body streams in, the answer streams out, both within
//! limits. It lives in a task of its own that always sees the process to its end.

use std::{
    io,
    pin::Pin,
    process::ExitStatus,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout, Command},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::git::{self, Process};

const CHUNK: usize = 64 << 10;
/// Of a body that git reads no more: a client that is still sending sees the answer only afterwards.
const MOST_UNREAD: u64 = 128 << 20;
const LONGEST_UNREAD: Duration = Duration::from_secs(10);

pub(crate) type Input = Pin<Box<dyn AsyncRead + Send>>;

pub(crate) struct Limits {
    /// Of the request, decompressed.
    pub(crate) input: u64,
    /// Of its first section, which git holds in memory: what a push is to change.
    pub(crate) commands: u64,
    pub(crate) idle: Duration,
    pub(crate) total: Duration,
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Git ended by itself, having said this on stderr.
    Ended(Option<ExitStatus>, String),
    TooLarge,
    /// The body broke off, or is not what it says it is.
    BadBody(io::Error),
    /// The client went away.
    Left,
    TimedOut,
    /// The server goes down.
    Stopped,
    NotStarted(io::Error),
}

/// What a session came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// What moves, so that what stands still is noticed.
struct Progress {
    at: Mutex<(Instant, u64, u64)>,
}

impl Progress {
    fn moved(&self, bytes_in: usize, bytes_out: usize) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        *at = (Instant::now(), at.1 + bytes_in as u64, at.2 + bytes_out as u64);
    }

    fn read(&self) -> (Instant, u64, u64) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when nothing has moved for that long.
    async fn stalled(&self, idle: Duration) {
        loop {
            let until = self.read().0 + idle;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// Runs `command` on `input`. `left` is cancelled when nobody waits for the answer any more, `stop` when
/// the server goes down; either way nothing of the process remains when this returns.
pub(crate) async fn run(
    mut command: Command,
    mut input: Input,
    output: &mpsc::Sender<Bytes>,
    limits: &Limits,
    left: &CancellationToken,
    stop: &CancellationToken,
) -> Outcome {
    command.stdin(std::process::Stdio::piped());
    let mut process = match Process::spawn(&mut command) {
        Ok(process) => process,
        Err(error) => {
            return Outcome { ending: Ending::NotStarted(error), bytes_in: 0, bytes_out: 0 };
        }
    };
    let progress = Progress { at: Mutex::new((Instant::now(), 0, 0)) };
    let child = process.child();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        let mut feeding = Box::pin(feed(&mut input, stdin, limits, &progress));
        let mut saying =
            Box::pin(async { tokio::join!(drain(stdout, output, &progress), git::head(stderr)) });
        // Git's last word may come before the client's.
        let (fed, (drained, said)) = tokio::select! {
            fed = &mut feeding => match fed {
                Ok(()) => (Ok(()), saying.await),
                Err(ending) => return Err(ending),
            },
            said = &mut saying => (timeout(LONGEST_UNREAD, feeding).await.unwrap_or(Ok(())), said),
        };
        drained?;
        // A body that broke off after git was done with it changes nothing.
        let status = child.wait().await.ok();
        match fed {
            Err(ending) if status.is_none_or(|status| !status.success()) => Err(ending),
            _ => Ok(Ending::Ended(status, said)),
        }
    };
    let ending = tokio::select! {
        biased;
        () = stop.cancelled() => Err(Ending::Stopped),
        () = left.cancelled() => Err(Ending::Left),
        ended = timeout(limits.total, work) => ended.unwrap_or(Err(Ending::TimedOut)),
        () = progress.stalled(limits.idle) => Err(Ending::TimedOut),
    };
    let ending = match ending {
        Ok(ending) => ending,
        Err(ending) => {
            process.end().await;
            ending
        }
    };
    let (_, bytes_in, bytes_out) = progress.read();
    Outcome { ending, bytes_in, bytes_out }
}

/// The body to git's stdin, and what git does not want of it to nowhere.
async fn feed(
    input: &mut Input,
    stdin: Option<ChildStdin>,
    limits: &Limits,
    progress: &Progress,
) -> Result<(), Ending> {
    let (mut stdin, mut fed, mut unread) = (stdin, 0_u64, 0_u64);
    let mut buffer = vec![0; CHUNK];
    let mut section = FirstSection::default();
    loop {
        let read = input.read(&mut buffer).await.map_err(Ending::BadBody)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        progress.moved(read, 0);
        fed += read as u64;
        match &mut stdin {
            Some(_) if fed > limits.input => return Err(Ending::TooLarge),
            Some(_) if section.len_with(bytes) > limits.commands => return Err(Ending::TooLarge),
            Some(pipe) => {
                if pipe.write_all(bytes).await.is_err() {
                    stdin = None;
                }
            }
            None => {
                unread += read as u64;
                if unread > MOST_UNREAD {
                    return Ok(());
                }
            }
        }
    }
}

/// Git's stdout to the client, who may be slow.
async fn drain(
    stdout: Option<ChildStdout>,
    output: &mpsc::Sender<Bytes>,
    progress: &Progress,
) -> Result<(), Ending> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        if buffer.capacity() < CHUNK / 4 {
            buffer.reserve(CHUNK);
        }
        match stdout.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(read) => {
                progress.moved(0, read);
                if output.send(buffer.split().freeze()).await.is_err() {
                    return Err(Ending::Left);
                }
                progress.moved(0, 0);
            }
        }
    }
}

/// How long the packet lines before the first flush are (gitprotocol-common: four hex digits of length,
/// these included, then the rest; `0000` is a flush).
#[derive(Default)]
struct FirstSection {
    len: u64,
    /// Bytes of the current line that are still to come.
    rest: usize,
    digits: Vec<u8>,
    ended: bool,
}

impl FirstSection {
    fn len_with(&mut self, mut bytes: &[u8]) -> u64 {
        while !self.ended && !bytes.is_empty() {
            let wanted = if self.rest > 0 { self.rest } else { 4 - self.digits.len() };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            self.len += now.len() as u64;
            if self.rest > 0 {
                self.rest -= now.len();
                continue;
            }
            self.digits.extend_from_slice(now);
            if self.digits.len() == 4 {
                let digits = std::str::from_utf8(&self.digits).ok();
                let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
                self.digits.clear();
                // What is no length is git's to refuse, and it does so at once.
                self.ended = matches!(length, None | Some(0));
                self.rest = length.unwrap_or_default().saturating_sub(4);
            }
        }
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_section_ends_with_its_flush_however_it_is_cut() {
        let body = b"0009a b c0005x00040001000000PACK and much more";
        for piece in 1..body.len() {
            let mut section = FirstSection::default();
            let len = body.chunks(piece).map(|piece| section.len_with(piece)).last();
            assert_eq!(len, Some(26), "{piece}");
        }
        let mut section = FirstSection::default();
        assert_eq!(section.len_with(b"fff0"), 4);
        assert_eq!(section.len_with(&[b'x'; 1000]), 1004);
        assert_eq!(FirstSection::default().len_with(b"nonsense"), 4);
    }
}
