//! Files made of uploaded files, in which addresses are found fast. They lie on disk under the digest of
//! what they are made of and the version of their format, the least used go first; each is made once, however
//! many ask for it, off the async threads and few at a time.

use std::{
    fs,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use moka::future::Cache;
use proguard::PRGCACHE_VERSION;
use symbolic_cfi::CFICACHE_LATEST_VERSION;
use symbolic_common::ByteView;
use symbolic_symcache::SYMCACHE_VERSION;
use tokio::sync::Semaphore;

use crate::guard::{Malformed, guarded};

/// A file is in memory for so long, and then opened and touched again.
const KEPT: Duration = Duration::from_hours(1);
/// What is in memory, in units of 4 KiB; a file that is mapped counts as [`MAPPED`].
const MAX_WEIGHT: u64 = 65_536;
const MAPPED: u32 = 256;
/// Whoever asked waits no longer; the work itself goes on, and is there for those who come later.
const PATIENCE: Duration = Duration::from_secs(120);
/// Ends each file: the checksum of all before it, and this.
const TRAILER: &[u8; 4] = b"LMDF";

/// What kind of file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    SymCache,
    /// How stacks are unwound, as text.
    Unwind,
    PortablePdb,
    Mapping,
}

impl Kind {
    /// Its folder, with the version of its format.
    fn folder(self) -> String {
        match self {
            Self::SymCache => format!("symcache-{SYMCACHE_VERSION}-1"),
            Self::Unwind => format!("cficache-{CFICACHE_LATEST_VERSION}-1"),
            Self::PortablePdb => "ppdb-1".to_owned(),
            Self::Mapping => format!("proguard-{PRGCACHE_VERSION}-1"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) digest: [u8; 32],
    /// Which object of the file.
    pub(crate) part: Option<String>,
}

impl Key {
    fn path(&self, root: &Path) -> PathBuf {
        use std::fmt::Write as _;
        let mut name = String::with_capacity(110);
        for byte in self.digest {
            let _ = write!(name, "{byte:02x}");
        }
        if let Some(part) = &self.part {
            name.push('-');
            name.extend(part.chars().filter(char::is_ascii_alphanumeric).take(40));
        }
        root.join(self.kind.folder()).join(name)
    }
}

/// The content of a derived file.
#[derive(Clone)]
pub(crate) struct View {
    bytes: ByteView<'static>,
}

impl View {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.len().checked_sub(8).and_then(|end| self.bytes.get(..end)).unwrap_or_default()
    }
}

type Answer = Result<View, Malformed>;

#[derive(Clone)]
pub(crate) struct Derived(Arc<Inner>);

struct Inner {
    root: PathBuf,
    max_bytes: u64,
    /// Bytes on disk, as far as known; [`UNKNOWN`] before the first look.
    bytes: AtomicU64,
    names: AtomicU64,
    memory: Cache<Key, Answer>,
    slots: Arc<Semaphore>,
}

const UNKNOWN: u64 = u64::MAX;

impl Derived {
    pub(crate) fn new(root: PathBuf, max_bytes: u64, parallel: usize) -> Self {
        let memory = Cache::builder()
            .max_capacity(MAX_WEIGHT)
            .weigher(|_: &Key, _: &Answer| MAPPED)
            .time_to_live(KEPT)
            .build();
        Self(Arc::new(Inner {
            root,
            max_bytes,
            bytes: AtomicU64::new(UNKNOWN),
            names: AtomicU64::new(0),
            memory,
            slots: Arc::new(Semaphore::new(parallel.max(1))),
        }))
    }

    /// Runs CPU work with the others, few at a time.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Malformed> + Send + 'static,
    ) -> Result<T, Malformed> {
        let Ok(permit) = self.0.slots.clone().acquire_owned().await else {
            return Err(Malformed::new("symbolication has ended"));
        };
        let running = tokio::task::spawn_blocking(move || {
            let done = guarded(work);
            drop(permit);
            done
        });
        match tokio::time::timeout(PATIENCE, running).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(Malformed::from_error(&error)),
            Err(_) => Err(Malformed::new(format_args!(
                "took longer than {} s to read",
                PATIENCE.as_secs()
            ))),
        }
    }

    /// The derived file; made by `make`, which writes it, when it is not there or not whole. Outer error: of
    /// the disk, to be tried again.
    pub(crate) async fn get(
        &self,
        key: Key,
        make: impl FnOnce(&mut dyn Write) -> Result<(), Failure> + Send + 'static,
    ) -> Result<Answer, Arc<io::Error>> {
        let inner = self.0.clone();
        self.0
            .memory
            .try_get_with(key.clone(), async move {
                let path = key.path(&inner.root);
                let opened = inner.clone();
                let at = path.clone();
                // No slot: to open a file is short.
                let open = tokio::task::spawn_blocking(move || opened.open(&at));
                if let Some(view) = open.await.map_err(io::Error::other)?? {
                    metrics::counter!("loom_symbolication_derived_total", "from" => "disk")
                        .increment(1);
                    return Ok(Ok(view));
                }
                metrics::counter!("loom_symbolication_derived_total", "from" => "made")
                    .increment(1);
                let made = self
                    .work(move || {
                        Ok(match inner.make(&path, make) {
                            Ok(()) => inner
                                .open(&path)
                                .and_then(|view| {
                                    view.ok_or_else(|| io::Error::other("a derived file is gone"))
                                })
                                .map(Ok),
                            Err(Failure::Malformed(malformed)) => Ok(Err(malformed)),
                            Err(Failure::Disk(error)) => Err(error),
                        })
                    })
                    .await;
                match made {
                    Ok(done) => done,
                    Err(malformed) => Ok(Err(malformed)),
                }
            })
            .await
    }
}

/// Why a file was not made.
pub(crate) enum Failure {
    /// What it is made of cannot be read, now and later.
    Malformed(Malformed),
    /// It may go better next time.
    Disk(io::Error),
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl Inner {
    /// The file when it is there and whole.
    fn open(&self, path: &Path) -> io::Result<Option<View>> {
        let bytes = match ByteView::open(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let whole = bytes
            .strip_suffix(TRAILER)
            .and_then(|rest| rest.split_last_chunk::<4>())
            .is_some_and(|(content, sum)| crc32fast::hash(content).to_le_bytes() == *sum);
        if !whole {
            tracing::warn!(file = %path.display(), "a derived file is damaged and is made anew");
            let length = bytes.len() as u64;
            drop(bytes);
            fs::remove_file(path)?;
            self.add(length, false);
            return Ok(None);
        }
        touch(path);
        Ok(Some(View { bytes }))
    }

    fn make(
        &self,
        path: &Path,
        make: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let length = write(&temporary, make).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        fs::rename(&temporary, path)?;
        self.add(length, true);
        self.shrink(path)?;
        Ok(())
    }

    fn add(&self, length: u64, more: bool) {
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
            (bytes != UNKNOWN).then(|| {
                if more { bytes.saturating_add(length) } else { bytes.saturating_sub(length) }
            })
        });
    }

    /// Removes the least used files while there are too many bytes; never the one that was just made.
    fn shrink(&self, keep: &Path) -> io::Result<()> {
        let known = self.bytes.load(Ordering::Relaxed);
        if known != UNKNOWN && known <= self.max_bytes {
            return Ok(());
        }
        let mut files = Vec::new();
        for folder in fs::read_dir(&self.root)?.flatten() {
            let Ok(entries) = fs::read_dir(folder.path()) else { continue };
            for entry in entries.flatten() {
                // Another may have removed it.
                let Ok(meta) = entry.metadata() else { continue };
                files.push((
                    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    meta.len(),
                    entry.path(),
                ));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        files.sort();
        for (_, length, path) in files {
            if bytes <= self.max_bytes {
                break;
            }
            if path != keep && fs::remove_file(&path).is_ok() {
                bytes = bytes.saturating_sub(length);
            }
        }
        metrics::gauge!("loom_symbolication_derived_bytes").set(bytes as f64);
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// Says that the file is used, at most once an hour.
fn touch(path: &Path) {
    let now = SystemTime::now();
    let touched = fs::metadata(path).and_then(|meta| meta.modified());
    let old = touched.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > KEPT));
    if old && let Ok(file) = fs::File::options().append(true).open(path) {
        let _ = file.set_modified(now);
    }
}

fn write(
    path: &Path,
    make: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut out = Summed {
        out: BufWriter::with_capacity(256 << 10, fs::File::create(path)?),
        sum: crc32fast::Hasher::new(),
        length: 0,
        failed: None,
    };
    let made = make(&mut out);
    // A full disk is not the fault of the file that was read.
    if let Some(error) = out.failed.take() {
        return Err(Failure::Disk(error));
    }
    made?;
    let Summed { mut out, sum, length, .. } = out;
    out.write_all(&sum.finalize().to_le_bytes())?;
    out.write_all(TRAILER)?;
    out.flush()?;
    Ok(length + 8)
}

/// Sums what is written.
struct Summed {
    out: BufWriter<fs::File>,
    sum: crc32fast::Hasher,
    length: u64,
    failed: Option<io::Error>,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.out.write(bytes) {
            Ok(written) => {
                self.sum.update(bytes.get(..written).unwrap_or_default());
                self.length += written as u64;
                Ok(written)
            }
            Err(error) => {
                self.failed = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
