//! The object store: contents under names that are used once. Which name holds what is in the database.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use loom_core::{Error, Result, id::OrgId};
use object_store::{
    ObjectStore, ObjectStoreExt, WriteMultipart, aws::AmazonS3Builder, local::LocalFileSystem,
    path::Path,
};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, sync::OnceCell};
use uuid::Uuid;

use super::config::{Place, S3};

/// Parts of an upload; S3 takes none that is smaller but the last.
const PART: usize = 5 << 20;
/// Parts of one upload that are on their way at once.
const PARTS: usize = 4;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects(Arc<Inner>);

struct Inner {
    place: Place,
    /// Opened at first use: a server that has no artifacts makes no directory.
    store: OnceCell<Arc<dyn ObjectStore>>,
}

/// A content that lies in the store, and that no row refers to yet.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub(crate) location: String,
    pub(crate) size: u64,
    pub(crate) sha1: [u8; 20],
    pub(crate) sha256: [u8; 32],
}

/// A content on its way into the store. Nothing of it is there before [`Upload::finish`]; dropped, it leaves
/// nothing.
pub(crate) struct Upload {
    location: String,
    parts: WriteMultipart,
    size: u64,
    limit: u64,
    sha1: Sha1,
    sha256: Sha256,
}

impl Objects {
    pub(crate) fn new(place: Place) -> Self {
        Self(Arc::new(Inner { place, store: OnceCell::new() }))
    }

    async fn store(&self) -> Result<&Arc<dyn ObjectStore>> {
        self.0.store.get_or_try_init(|| async { open(&self.0.place) }).await
    }

    /// A name that nothing has had: two uploads of the same content never meet.
    pub(crate) fn name(kind: &str, org: OrgId, id: Uuid) -> String {
        let id = id.simple().to_string();
        // The end of a UUIDv7 is random: directories fill evenly.
        let folder = id.get(30..).unwrap_or("00");
        format!("{kind}/{org}/{folder}/{id}")
    }

    /// Writes a little, reads it again and removes it.
    pub(crate) async fn probe(&self, id: Uuid) -> Result<(), String> {
        let path = Path::from(format!("probe-{}", id.simple()));
        let store = self.store().await.map_err(|error| error.to_string())?;
        let text = |error: object_store::Error| error.to_string();
        store.put(&path, Bytes::from_static(b"loom").into()).await.map_err(text)?;
        let read = store.get(&path).await.map_err(text)?.bytes().await.map_err(text);
        store.delete(&path).await.map_err(text)?;
        if read? == "loom" { Ok(()) } else { Err("it gives back something else".to_owned()) }
    }

    /// Begins an upload; `limit` is in bytes.
    pub(crate) async fn upload(&self, location: &str, limit: u64) -> Result<Upload> {
        let upload = self.store().await?.put_multipart(&Path::from(location)).await;
        Ok(Upload {
            location: location.to_owned(),
            parts: WriteMultipart::new_with_chunk_size(upload.map_err(full)?, PART),
            size: 0,
            limit,
            sha1: Sha1::new(),
            sha256: Sha256::new(),
        })
    }

    pub(crate) async fn put(&self, location: &str, content: Bytes) -> Result<()> {
        let store = self.store().await?;
        store.put(&Path::from(location), content.into()).await.map_err(full)?;
        Ok(())
    }

    pub(crate) async fn get(&self, location: &str) -> Result<Bytes> {
        let found = self.store().await?.get(&Path::from(location)).await.map_err(missing)?;
        found.bytes().await.map_err(missing)
    }

    /// The content, piece by piece.
    pub(crate) async fn stream(
        &self,
        location: &str,
    ) -> Result<impl futures::Stream<Item = object_store::Result<Bytes>> + Send + use<>> {
        let found = self.store().await?.get(&Path::from(location)).await.map_err(missing)?;
        Ok(found.into_stream())
    }

    /// Where the content is on this machine, if it is here.
    pub(crate) fn here(&self, location: &str) -> Option<PathBuf> {
        match &self.0.place {
            Place::Directory(root) => Some(root.join(location)),
            Place::S3(_) => None,
        }
    }

    /// Copies the content into a file that is made for it.
    pub(crate) async fn copy_to(&self, location: &str, path: &std::path::Path) -> Result<()> {
        let mut content = self.stream(location).await?;
        let mut file = tokio::fs::File::create_new(path).await.map_err(no_room)?;
        while let Some(bytes) = content.try_next().await.map_err(missing)? {
            file.write_all(&bytes).await.map_err(no_room)?;
        }
        file.flush().await.map_err(no_room)
    }

    /// Removes what may be there, or not.
    pub(crate) async fn remove(&self, location: &str) -> Result<()> {
        match self.store().await?.delete(&Path::from(location)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(missing(error)),
        }
        // What a server that was killed had staged. Names are used once: it is always the first.
        if let Some(staged) = self.here(&format!("{location}#1")) {
            match tokio::fs::remove_file(staged).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::internal(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Upload {
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        if self.size > self.limit {
            return Err(Error::too_large(format!(
                "the file is larger than the {} bytes that LOOM_SERVER_ARTIFACTS_MAX_BYTES allows",
                self.limit
            )));
        }
        self.sha1.update(&bytes);
        self.sha256.update(&bytes);
        self.parts.wait_for_capacity(PARTS).await.map_err(full)?;
        self.parts.put(bytes);
        Ok(())
    }

    pub(crate) async fn finish(self) -> Result<Staged> {
        self.parts.finish().await.map_err(full)?;
        Ok(Staged {
            location: self.location,
            size: self.size,
            sha1: self.sha1.finalize().into(),
            sha256: self.sha256.finalize().into(),
        })
    }

    /// Takes back what was sent of it.
    pub(crate) async fn abort(self) {
        if let Err(error) = self.parts.abort().await {
            tracing::debug!(%error, "an upload could not be taken back");
        }
    }
}

fn open(place: &Place) -> Result<Arc<dyn ObjectStore>> {
    match place {
        Place::Directory(root) => {
            loom_private_dir(root).map_err(no_room)?;
            let store = LocalFileSystem::new_with_prefix(root).map_err(full)?;
            // An answer means that it outlasts a power cut.
            Ok(Arc::new(store.with_fsync(true)))
        }
        Place::S3(s3) => {
            let store = bucket(s3).map_err(full)?;
            Ok(Arc::new(object_store::prefix::PrefixStore::new(store, s3.prefix.as_str())))
        }
    }
}

/// What customers upload is nobody's on this machine but the server's.
fn loom_private_dir(root: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)
}

fn bucket(s3: &S3) -> object_store::Result<object_store::aws::AmazonS3> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&s3.bucket)
        .with_region(&s3.region)
        .with_virtual_hosted_style_request(s3.virtual_hosted);
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some((id, secret)) = &s3.access_key {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose());
    }
    builder.build()
}

/// The store took nothing: it is full, or out of reach.
fn full(error: object_store::Error) -> Error {
    Error::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "artifact_store_unavailable",
        "the store of artifacts takes nothing just now: it is full or out of reach; nothing was stored",
    )
    .retry_after(std::time::Duration::from_secs(30))
    .because(error)
}

fn no_room(error: std::io::Error) -> Error {
    full(object_store::Error::Generic { store: "directory", source: error.into() })
}

fn missing(error: object_store::Error) -> Error {
    Error::unavailable("the store of artifacts does not give the file out just now; try again")
        .because(error)
}

/// Reads a stream of pieces to its end.
pub(crate) async fn drain(
    upload: &mut Upload,
    pieces: impl futures::Stream<Item = Result<Bytes>>,
) -> Result<()> {
    let mut pieces = std::pin::pin!(pieces);
    while let Some(piece) = pieces.next().await {
        upload.write(piece?).await?;
    }
    Ok(())
}
