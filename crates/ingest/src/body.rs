//! Bodies as they come in, decoded on the way, with an end to how large they and all of them become.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_compression::{
    tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt};
use http::{HeaderMap, header};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};
use tokio_util::io::StreamReader;

use crate::{measures, refusal::Refusal};

/// What an item's or envelope's header may be.
pub(crate) const MAX_LINE: usize = 64 * 1024;

const CHUNK: usize = 32 * 1024;
/// Without a byte for so long, a client is gone.
const IDLE: Duration = Duration::from_secs(30);
/// The largest body over a slow line.
const LONGEST: Duration = Duration::from_secs(600);
/// How far back Zstandard may refer, as a power of two: what it keeps in memory while decoding.
const ZSTD_WINDOW: u32 = 24;

/// Memory for bodies of all requests together.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Room>);

#[derive(Debug)]
struct Room {
    used: AtomicUsize,
    most: usize,
}

impl Memory {
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Room { used: AtomicUsize::new(0), most }))
    }

    pub(crate) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

/// What one body has of it; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Memory,
    bytes: AtomicUsize,
}

impl Share {
    fn grow(&self, by: usize) -> Result<(), Refusal> {
        let room = &self.memory.0;
        let before = room.used.fetch_add(by, Ordering::Relaxed);
        self.bytes.fetch_add(by, Ordering::Relaxed);
        measures::memory(before.saturating_add(by));
        if before.saturating_add(by) > room.most {
            return Err(Refusal::no_room("there is no memory for this body just now"));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let before = self.memory.0.used.fetch_sub(bytes, Ordering::Relaxed);
        measures::memory(before.saturating_sub(bytes));
    }
}

/// A body that is being read.
pub(crate) struct Incoming {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    buffer: BytesMut,
    share: Arc<Share>,
    seen: usize,
    limit: usize,
    ended: bool,
    until: Instant,
}

impl Incoming {
    /// # Errors
    /// For an encoding that is not known, and a length that is known to be too large.
    pub(crate) fn new(
        body: Body,
        headers: &HeaderMap,
        limit: usize,
        memory: &Memory,
    ) -> Result<Self, Refusal> {
        let encoding = match headers.get(header::CONTENT_ENCODING) {
            None => "",
            Some(value) => value.to_str().map_err(|_| Refusal::encoding())?.trim(),
        };
        let stream = body.into_data_stream().map_err(io::Error::other);
        let raw = StreamReader::new(stream);
        let reader: Pin<Box<dyn AsyncRead + Send>> = match encoding.to_ascii_lowercase().as_str() {
            "" | "identity" => {
                if too_long(headers, limit) {
                    return Err(over(limit));
                }
                Box::pin(raw)
            }
            "gzip" | "x-gzip" => {
                let mut decoder = GzipDecoder::new(raw);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            "deflate" => Box::pin(ZlibDecoder::new(raw)),
            "br" => Box::pin(BrotliDecoder::new(raw)),
            "zstd" => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW)];
                Box::pin(ZstdDecoder::with_params(raw, &window))
            }
            _ => return Err(Refusal::encoding()),
        };
        Ok(Self {
            reader,
            buffer: BytesMut::new(),
            share: Arc::new(Share { memory: memory.clone(), bytes: AtomicUsize::new(0) }),
            seen: 0,
            limit,
            ended: false,
            until: Instant::now() + LONGEST,
        })
    }

    /// Reads on; false at the end.
    async fn more(&mut self) -> Result<bool, Refusal> {
        if self.ended {
            return Ok(false);
        }
        self.buffer.reserve(CHUNK);
        let until = self.until.min(Instant::now() + IDLE);
        let read = timeout_at(until, self.reader.read_buf(&mut self.buffer)).await;
        let count = read.map_err(|_| Refusal::too_slow())?.map_err(|_| {
            Refusal::malformed("the body did not arrive whole, or is not encoded as it says")
        })?;
        self.seen += count;
        self.ended = count == 0;
        if self.seen > self.limit {
            return Err(over(self.limit));
        }
        self.share.grow(count)?;
        Ok(!self.ended)
    }

    /// Reads until the first line is there, and shows it. The rest comes with [`Incoming::whole`].
    pub(crate) async fn first_line(&mut self) -> Result<&[u8], Refusal> {
        let mut searched = 0;
        let end = loop {
            let fresh = self.buffer.get(searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', fresh) {
                break searched + at;
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                return Err(Refusal::malformed("the first line of the envelope is too long"));
            }
            if !self.more().await? {
                break searched;
            }
        };
        Ok(self.buffer.get(..end).unwrap_or_default())
    }

    /// Its share of the memory, to be held as long as what was read is.
    pub(crate) fn share(&self) -> Arc<Share> {
        Arc::clone(&self.share)
    }

    /// All of it.
    pub(crate) async fn whole(mut self) -> Result<Bytes, Refusal> {
        while self.more().await? {}
        Ok(self.buffer.freeze())
    }

    /// Piece by piece.
    pub(crate) fn stream(self) -> impl Stream<Item = Result<Bytes, Refusal>> + Send {
        futures::stream::try_unfold(self, |mut incoming| async move {
            let more = incoming.more().await?;
            Ok(more.then(|| (incoming.buffer.split().freeze(), incoming)))
        })
    }
}

fn over(limit: usize) -> Refusal {
    Refusal::too_large(format!("the body is larger than {} MiB when decoded", limit >> 20))
}

fn too_long(headers: &HeaderMap, limit: usize) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse::<usize>().ok()).is_some_and(|length| length > limit)
}
