//! Files that were fetched or unpacked, in a directory that is bounded: the least recently used go first. It
//! may be removed at any time, and several servers may share it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use loom_core::{Error, Result};
use moka::future::Cache as Flights;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    budget: u64,
    /// Bytes that came since the directory was last measured.
    added: AtomicU64,
    /// Who is making a file, so that it is made once.
    flights: Flights<String, PathBuf>,
}

impl Cache {
    pub(crate) fn new(dir: PathBuf, budget: u64) -> Self {
        // The first file has the directory measured.
        let added = AtomicU64::new(budget);
        let flights = Flights::new(10_000);
        Self(Arc::new(Inner { dir, budget, added, flights }))
    }

    /// The file under a key, made by `fill` (which creates the path that it is given) when it is not there.
    pub(crate) async fn get<F>(
        &self,
        key: &str,
        fill: impl FnOnce(PathBuf) -> F + Send,
    ) -> Result<PathBuf>
    where
        F: Future<Output = Result<()>> + Send,
    {
        let path = self.0.dir.join(key);
        if touch(path.clone()).await {
            return Ok(path);
        }
        let made = self
            .0
            .flights
            .try_get_with(key.to_owned(), async {
                // Whoever was first may be done by now.
                if !touch(path.clone()).await {
                    self.make(&path, fill).await?;
                }
                Ok::<_, Error>(path)
            })
            .await;
        self.0.flights.invalidate(key).await;
        made.map_err(|error| Error::clone(&error))
    }

    async fn make<F>(&self, path: &Path, fill: impl FnOnce(PathBuf) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let dir = self.0.dir.clone();
        blocking(move || {
            use std::os::unix::fs::DirBuilderExt as _;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
        })
        .await?;
        let unfinished = self.0.dir.join(format!("{:032x}.part", rand::random::<u128>()));
        let made = match fill(unfinished.clone()).await {
            Ok(()) => {
                let path = path.to_owned();
                let from = unfinished.clone();
                blocking(move || {
                    let size = fs::metadata(&from)?.len();
                    fs::rename(from, path).map(|()| size)
                })
                .await
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(size) => self.added(size, path).await,
            Err(error) => {
                let _ = tokio::fs::remove_file(unfinished).await;
                Err(error)
            }
        }
    }

    /// Measures the directory now and then, and removes what is over.
    async fn added(&self, size: u64, newest: &Path) -> Result<()> {
        let added = self.0.added.fetch_add(size, Ordering::Relaxed) + size;
        if added < self.0.budget / 10 {
            return Ok(());
        }
        self.0.added.store(0, Ordering::Relaxed);
        let (dir, budget, newest) = (self.0.dir.clone(), self.0.budget, newest.to_owned());
        blocking(move || trim(&dir, budget, &newest)).await
    }
}

/// Whether the file is there; its time of change is that of its last use.
async fn touch(path: PathBuf) -> bool {
    let touched = blocking(move || {
        let file = fs::File::open(path)?;
        // A disk that takes no times only loses the order.
        let _ = file.set_modified(SystemTime::now());
        Ok(())
    });
    touched.await.is_ok()
}

fn trim(dir: &Path, budget: u64, newest: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        // One that goes away meanwhile is gone.
        let Ok(data) = entry.metadata() else { continue };
        if data.is_file() {
            files.push((
                data.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                data.len(),
                entry.path(),
            ));
        }
    }
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    files.sort_unstable();
    for (_, size, path) in files {
        if total <= budget {
            break;
        }
        if path != newest && fs::remove_file(&path).is_ok() {
            total -= size;
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?.map_err(Error::internal)
}
