//! Bodies as they come in, decoded on the way, with an end to how large they and all of them become.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
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
use loom_core::id::OrgId;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};
use tokio_util::io::StreamReader;

use crate::{measures, refusal::Refusal};

/// What an item's or envelope's header may be.
pub(crate) const MAX_LINE: usize = 64 * 1024;

const CHUNK: usize = 32 * 1024;
/// How long a body may take to bring what is due of it.
const WINDOW: Duration = Duration::from_secs(30);
/// What each window brings at the least: a kilobyte a second.
const FLOOR: usize = 30 * 1024;
/// Who holds much brings much: so large a part of what a body holds already. One that comes at an even
/// speed falls below it after eight minutes.
const PART: usize = 16;
/// The largest body over a slow line.
const LONGEST: Duration = Duration::from_secs(480);
/// How far back Zstandard may refer, as a power of two: what it keeps in memory while decoding.
const ZSTD_WINDOW: u32 = 24;

/// Memory for bodies of all requests together. No organisation takes more than its part of it, and whose
/// it is not known yet have one such part together.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Room>);

#[derive(Debug)]
struct Room {
    used: AtomicUsize,
    most: usize,
    most_of_one: usize,
    of_each: Mutex<HashMap<Option<OrgId>, Weak<AtomicUsize>>>,
}

/// Organisations that are known before those without a body are forgotten.
const PRUNE_AT: usize = 1000;

impl Memory {
    /// `largest`: a body of this size must be possible, also where that is more than a quarter.
    pub(crate) fn new(most: usize, largest: usize) -> Self {
        Self(Arc::new(Room {
            used: AtomicUsize::new(0),
            most,
            most_of_one: (most / 4).max(largest).min(most),
            of_each: Mutex::default(),
        }))
    }

    pub(crate) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    fn share(&self, org: Option<OrgId>) -> Arc<Share> {
        let mut all = self.0.of_each.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= PRUNE_AT {
            all.retain(|_, part| part.strong_count() > 0);
        }
        let of_org = all.get(&org).and_then(Weak::upgrade).unwrap_or_else(|| {
            let fresh = Arc::default();
            all.insert(org, Arc::downgrade(&fresh));
            fresh
        });
        Arc::new(Share { memory: self.clone(), of_org, bytes: AtomicUsize::new(0) })
    }
}

/// What one body has of it; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Memory,
    of_org: Arc<AtomicUsize>,
    bytes: AtomicUsize,
}

impl Share {
    fn grow(&self, by: usize) -> Result<(), Refusal> {
        let room = &self.memory.0;
        let all = room.used.fetch_add(by, Ordering::Relaxed).saturating_add(by);
        let of_org = self.of_org.fetch_add(by, Ordering::Relaxed).saturating_add(by);
        self.bytes.fetch_add(by, Ordering::Relaxed);
        measures::memory(all);
        if of_org > room.most_of_one {
            return Err(Refusal::no_room(
                "too much is being sent at once by this organisation; send it again later",
            ));
        }
        if all > room.most {
            return Err(Refusal::no_room("there is no memory for this body just now"));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.of_org.fetch_sub(bytes, Ordering::Relaxed);
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
    window: Window,
}

/// What is due of a body until when.
struct Window {
    ends: Instant,
    due: usize,
}

impl Window {
    /// `seen` came so far.
    fn after(seen: usize) -> Self {
        Self { ends: Instant::now() + WINDOW, due: seen.saturating_add(FLOOR.max(seen / PART)) }
    }
}

impl Incoming {
    /// `org` is whose it is, when that is known already; see [`Incoming::belongs_to`].
    ///
    /// # Errors
    /// For an encoding that is not known, and a length that is known to be too large.
    pub(crate) fn new(
        body: Body,
        headers: &HeaderMap,
        limit: usize,
        memory: &Memory,
        org: Option<OrgId>,
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
            share: memory.share(org),
            seen: 0,
            limit,
            ended: false,
            until: Instant::now() + LONGEST,
            window: Window::after(0),
        })
    }

    /// It is known now whose it is.
    pub(crate) fn belongs_to(&mut self, org: OrgId) -> Result<(), Refusal> {
        self.share = self.share.memory.share(Some(org));
        self.share.grow(self.seen)
    }

    /// Reads on; false at the end.
    async fn more(&mut self) -> Result<bool, Refusal> {
        if self.ended {
            return Ok(false);
        }
        self.buffer.reserve(CHUNK);
        let until = self.until.min(self.window.ends);
        let read = timeout_at(until, self.reader.read_buf(&mut self.buffer)).await;
        let count = read.map_err(|_| Refusal::too_slow())?.map_err(|_| {
            Refusal::malformed("the body did not arrive whole, or is not encoded as it says")
        })?;
        self.seen += count;
        self.ended = count == 0;
        if self.seen >= self.window.due {
            self.window = Window::after(self.seen);
        }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt, stream};
    use tokio::time::sleep;
    use uuid::Uuid;

    use super::*;

    const MIB: usize = 1 << 20;

    fn org(number: u128) -> Option<OrgId> {
        Some(OrgId(Uuid::from_u128(number)))
    }

    fn incoming(body: Body, memory: &Memory, org: Option<OrgId>) -> Incoming {
        Incoming::new(body, &HeaderMap::new(), 200 * MIB, memory, org).unwrap_or_else(|_| panic!())
    }

    /// So many bytes, and so much of them each second.
    fn slow(bytes: usize, each_sec: usize) -> Body {
        Body::from_stream(stream::unfold(bytes, move |left| async move {
            let now = left.min(each_sec);
            sleep(Duration::from_secs(1)).await;
            (left > 0).then(|| (Ok::<_, Infallible>(Bytes::from(vec![b'a'; now])), left - now))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_brings_less_than_a_kilobyte_a_second_is_given_up() {
        let memory = Memory::new(16 * MIB, MIB);
        let begun = Instant::now();
        let refusal = incoming(slow(MIB, 1000), &memory, org(1)).whole().await.unwrap_err();
        assert_eq!((refusal.status.as_u16(), begun.elapsed().as_secs()), (408, 30));
        let whole = incoming(slow(MIB / 4, 1100), &memory, org(1)).whole().await.unwrap();
        assert_eq!(whole.len(), MIB / 4);
        // Its last bytes may be few.
        let whole = incoming(slow(20, 1), &memory, org(1)).whole().await.unwrap();
        assert_eq!(whole.len(), 20);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_holds_much_must_bring_more_than_drops() {
        let memory = Memory::new(64 * MIB, MIB);
        let much = stream::once(async { Ok(Bytes::from(vec![b'a'; 10 * MIB])) });
        let drops = slow(10 * MIB, 4096).into_data_stream();
        let body = Body::from_stream(much.chain(drops));
        let begun = Instant::now();
        let refusal = incoming(body, &memory, org(1)).whole().await.unwrap_err();
        assert_eq!((refusal.status.as_u16(), begun.elapsed().as_secs()), (408, 30));
        // At an even speed the same amount is taken.
        let even = incoming(slow(10 * MIB, 40_000), &memory, org(1)).whole().await.unwrap();
        assert_eq!(even.len(), 10 * MIB);
    }

    #[tokio::test]
    async fn an_organisation_takes_a_quarter_of_the_memory_and_leaves_the_rest_to_others() {
        let memory = Memory::new(16 * MIB, MIB);
        let mut held = Vec::new();
        let mut read = async |org: Option<OrgId>, bytes: usize| {
            let body = incoming(Body::from(vec![b'a'; bytes]), &memory, org);
            held.push(body.share());
            body.whole().await.map(|_| ()).map_err(|refusal| refusal.status.as_u16())
        };
        assert_eq!(read(org(1), 3 * MIB).await, Ok(()));
        assert_eq!(read(org(1), 2 * MIB).await, Err(503));
        for other in 2..5 {
            assert_eq!(read(org(other), 3 * MIB).await, Ok(()));
        }
        // Strangers are one more.
        assert_eq!(read(None, 3 * MIB).await, Err(503), "all of them together are too much");
        held.clear();
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn what_a_stranger_sent_is_counted_for_who_it_turns_out_to_be() {
        let memory = Memory::new(16 * MIB, MIB);
        let body = vec![b'a'; 3 * MIB];
        let first = incoming(Body::from(body.clone()), &memory, org(1));
        let _first = first.share();
        first.whole().await.unwrap();
        let mut second = incoming(Body::from(body), &memory, None);
        assert!(second.first_line().await.is_err(), "there is none in sight");
        second.belongs_to(OrgId(Uuid::from_u128(1))).unwrap();
        assert_eq!(second.whole().await.unwrap_err().status.as_u16(), 503);
    }

    #[test]
    fn one_body_may_be_as_large_as_bodies_may_be() {
        assert_eq!(Memory::new(512 * MIB, 200 * MIB).0.most_of_one, 200 * MIB);
        assert_eq!(Memory::new(512 * MIB, MIB).0.most_of_one, 128 * MIB);
        assert_eq!(Memory::new(16 * MIB, 200 * MIB).0.most_of_one, 16 * MIB);
    }
}
