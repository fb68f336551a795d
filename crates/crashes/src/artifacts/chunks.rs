//! Pieces of uploads, as sentry-cli sends them: by their SHA-1, in any order, as often as it likes.

use std::collections::HashMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::StatusCode;
use loom_core::{Error, Result, id::OrgId};
use sha1::{Digest, Sha1};
use sqlx::PgPool;

use super::{Artifacts, GRACE, objects::Objects, store};

/// Bytes of a piece; the last of a file is smaller.
pub(crate) const CHUNK: usize = 8 << 20;
/// Requests that bring pieces and are read at the same time: each holds one in memory.
pub(super) const PARALLEL: usize = 8;
/// Those of one organisation; sentry-cli is told to send so many at once.
pub(crate) const SHARE: usize = 4;

pub(crate) type Checksum = [u8; 20];

/// A piece that is there.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) location: String,
    pub(super) size: i32,
}

impl Artifacts {
    /// Takes a piece, unpacked.
    ///
    /// # Errors
    /// 400 when it is not what its name says.
    pub(crate) async fn take_chunk(
        &self,
        org: OrgId,
        checksum: Checksum,
        content: Bytes,
    ) -> Result<()> {
        if <[u8; 20]>::from(Sha1::digest(&content)) != checksum {
            return Err(Error::new(
                StatusCode::BAD_REQUEST,
                "wrong_checksum",
                format!(
                    "the chunk {} does not have this SHA-1; send it again",
                    hex::encode(checksum)
                ),
            ));
        }
        let now = self.clock.now();
        if touch(&self.pool, org, &[checksum], now).await?.contains_key(&checksum) {
            return Ok(());
        }
        let size = i32::try_from(content.len()).unwrap_or(i32::MAX);
        let location = Objects::name("chunks", org, loom_core::id::new_uuid(now));
        store::reserve(&self.pool, &location, now + GRACE).await?;
        self.objects.put(&location, content).await?;
        let mut tx = loom_db::begin(&self.pool).await?;
        let stored = sqlx::query_scalar!(
            "INSERT INTO crash_chunks (org_id, sha1, location, size, touched_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (org_id, sha1) DO UPDATE SET touched_at = EXCLUDED.touched_at
             RETURNING location",
            org.0,
            &checksum,
            location,
            size,
            now
        )
        .fetch_one(&mut *tx)
        .await?;
        if stored == location {
            store::keep(&mut tx, &location).await?;
        } else {
            store::release(&mut tx, &location).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// Those of these pieces that are there; they stay for the whole grace from now on.
pub(super) async fn touch(
    pool: &PgPool,
    org: OrgId,
    checksums: &[Checksum],
    now: DateTime<Utc>,
) -> Result<HashMap<Checksum, Chunk>> {
    let mut wanted: Vec<Vec<u8>> = checksums.iter().map(|sum| sum.to_vec()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut tx = loom_db::begin(pool).await?;
    // In one order, so that two that ask for the same do not wait for each other.
    let rows = sqlx::query!(
        "WITH wanted AS (
             SELECT sha1 FROM crash_chunks WHERE org_id = $1 AND sha1 = ANY($2) ORDER BY sha1 FOR UPDATE)
         UPDATE crash_chunks SET touched_at = $3
          WHERE org_id = $1 AND sha1 IN (SELECT sha1 FROM wanted)
         RETURNING sha1, location, size",
        org.0,
        &wanted,
        now
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let chunk = Chunk { location: row.location, size: row.size };
            Some((row.sha1.as_slice().try_into().ok()?, chunk))
        })
        .collect())
}
