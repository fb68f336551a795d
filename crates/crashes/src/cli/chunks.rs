//! Uploads of sentry-cli: files in pieces, put together when all are there.

use std::{collections::BTreeMap, time::Duration};

use async_compression::tokio::bufread::GzipDecoder;
use axum::{
    Json,
    extract::{Multipart, State},
};
use bytes::Bytes;
use futures::TryStreamExt;
use loom_core::{Error, Path, Principal, Result, id::OrgId, port::Project};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

use crate::{
    Crashes,
    artifacts::{Assembly, CHUNK, SHARE, State as Progress, http::pieces, model::About},
};

/// Chunks of one request; all of one are sent again when a request fails.
const CHUNKS: usize = 64;
const REQUEST: usize = 32 << 20;
/// Files of one question.
const FILES: usize = 10_000;
const IDLE: Duration = Duration::from_secs(60);
/// A request holds its turn for so long at most.
const WHOLE: Duration = Duration::from_secs(600);

pub(super) async fn options(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(org): Path<String>,
) -> Result<Json<Value>> {
    crashes.writer(&principal, &org).await?;
    Ok(Json(json!({
        // As seen from `/api/0/`: whatever address the client has us under.
        "url": format!("organizations/{org}/chunk-upload/"),
        "chunkSize": CHUNK,
        "chunksPerRequest": CHUNKS,
        "maxRequestSize": REQUEST,
        "maxFileSize": crashes.artifacts.max_bytes(),
        "maxWait": 300,
        "concurrency": SHARE,
        "hashAlgorithm": "sha1",
        "compression": ["gzip"],
        "accept": [
            "debug_files", "release_files", "pdbs", "portablepdbs", "sources", "bcsymbolmaps", "il2cpp",
            "artifact_bundles", "artifact_bundles_v2", "proguard"
        ]
    })))
}

pub(super) async fn upload(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(org): Path<String>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Json<Value>> {
    let acting = crashes.writer(&principal, &org).await?;
    let mut form = form.map_err(|_| malformed("chunks come as a form, each a file of it"))?;
    let _turn = crashes.artifacts.chunks.take(acting.org).await?;
    tokio::time::timeout(WHOLE, take(&crashes, acting.org, &mut form))
        .await
        .map_err(|_| malformed("the chunks did not arrive within ten minutes"))??;
    Ok(Json(json!({})))
}

async fn take(crashes: &Crashes, org: OrgId, form: &mut Multipart) -> Result<()> {
    let mut taken = 0;
    loop {
        let next = tokio::time::timeout(IDLE, form.next_field()).await;
        let next = next.map_err(|_| malformed("nothing came in for a minute"))?;
        let next =
            next.map_err(|error| malformed("the form did not arrive whole").because(error))?;
        let Some(field) = next else { break };
        let packed = match field.name() {
            Some("file") => false,
            Some("file_gzip") => true,
            _ => continue,
        };
        taken += 1;
        if taken > CHUNKS {
            return Err(malformed("a request brings at most 64 chunks"));
        }
        let mut checksum = [0; 20];
        let name = field.file_name().unwrap_or_default();
        hex::decode_to_slice(name, &mut checksum)
            .map_err(|_| malformed("a chunk is named by its SHA-1, in 40 hexadecimal digits"))?;
        let content = whole(field, packed).await?;
        crashes.artifacts.take_chunk(org, checksum, content).await?;
    }
    Ok(())
}

/// A chunk, unpacked, and no larger than one may be.
async fn whole(field: axum::extract::multipart::Field<'_>, packed: bool) -> Result<Bytes> {
    let mut failed = None;
    let mut content = Vec::new();
    let limit = CHUNK as u64 + 1;
    let read = {
        let bytes = pieces(field).map_err(|error| {
            failed = Some(error);
            std::io::Error::other("the client is gone")
        });
        let reader = StreamReader::new(Box::pin(bytes));
        if packed {
            GzipDecoder::new(reader).take(limit).read_to_end(&mut content).await
        } else {
            reader.take(limit).read_to_end(&mut content).await
        }
    };
    if let Some(error) = failed {
        return Err(error);
    }
    read.map_err(|error| {
        malformed("a chunk is not the gzip that it is said to be").because(error)
    })?;
    if content.len() > CHUNK {
        return Err(Error::too_large(format!("a chunk has at most {CHUNK} bytes")));
    }
    Ok(content.into())
}

fn malformed(detail: &'static str) -> Error {
    Error::malformed("malformed_upload", detail)
}

#[derive(Deserialize)]
pub(super) struct BundleRequest {
    checksum: String,
    chunks: Vec<String>,
    #[serde(default)]
    projects: Vec<Value>,
    version: Option<String>,
    dist: Option<String>,
}

pub(super) async fn assemble_bundle(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(org): Path<String>,
    loom_core::Json(request): loom_core::Json<BundleRequest>,
) -> Result<Json<Value>> {
    let acting = crashes.writer(&principal, &org).await?;
    let names: Vec<_> = request
        .projects
        .iter()
        .map(|name| name.as_str().map_or_else(|| name.to_string(), str::to_owned))
        .collect();
    if names.is_empty() {
        return Err(Error::invalid("projects", "name the project that the bundle is for"));
    }
    let projects = crashes.projects_named(&acting, &names).await?;
    let text = |value: Option<String>| value.filter(|value| !value.is_empty());
    let assembly = Assembly {
        sha1: checksum(&request.checksum)?,
        chunks: checksums(&request.chunks)?,
        about: About {
            name: Some(format!("{}.zip", request.checksum)),
            release: text(request.version),
            dist: text(request.dist),
            uploaded_by: Some(acting.name.to_string()),
            ..About::default()
        }
        .check()?,
    };
    let mut states = Vec::new();
    for project in &projects {
        states.push(crashes.artifacts.assemble(project, assembly.clone()).await?);
    }
    Ok(Json(describe(&slowest(states))))
}

#[derive(Deserialize)]
pub(super) struct FileRequest {
    name: String,
    debug_id: Option<String>,
    #[serde(default)]
    chunks: Vec<String>,
}

pub(super) async fn assemble_files(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((org, project)): Path<(String, String)>,
    loom_core::Json(request): loom_core::Json<BTreeMap<String, FileRequest>>,
) -> Result<Json<Value>> {
    let acting = crashes.writer(&principal, &org).await?;
    let project = crashes.project(&acting, &project).await?;
    if request.len() > FILES {
        return Err(Error::invalid("", format!("one request asks for at most {FILES} files")));
    }
    let mut answer = serde_json::Map::new();
    for (sum, file) in request {
        let debug_id = file.debug_id.as_deref().or_else(|| mapping_id(&file.name));
        let debug_id = debug_id.and_then(loom_symbolication::normalize_debug_id);
        let assembly = Assembly {
            sha1: checksum(&sum)?,
            chunks: checksums(&file.chunks)?,
            about: About {
                name: Some(file.name),
                debug_id,
                uploaded_by: Some(acting.name.to_string()),
                ..About::default()
            }
            .check()?,
        };
        let state = crashes.artifacts.assemble(&project, assembly).await?;
        let mut told = describe(&state);
        if let (Progress::Done(id), Some(told)) = (&state, told.as_object_mut()) {
            told.insert("dif".to_owned(), crashes.dif(&project, *id, &sum).await?);
        }
        answer.insert(sum, told);
    }
    Ok(Json(Value::Object(answer)))
}

impl Crashes {
    /// A debug file, as sentry-cli reads it.
    async fn dif(
        &self,
        project: &Project,
        id: loom_core::id::ArtifactId,
        sha1: &str,
    ) -> Result<Value> {
        let Some((artifact, objects)) = self.artifacts.detail(project, id).await? else {
            return Ok(Value::Null);
        };
        let object = objects.first();
        let debug_id = object.and_then(|object| object.debug_id.clone());
        Ok(json!({
            "id": artifact.id,
            "uuid": debug_id.as_deref().and_then(|id| id.get(..36)),
            "debugId": debug_id,
            "codeId": object.and_then(|object| object.code_id.clone()),
            "objectName": artifact.name,
            "symbolType": artifact.kind,
            "cpuName": object.and_then(|object| object.arch.clone()).unwrap_or_else(|| "any".to_owned()),
            "sha1": sha1,
            "size": artifact.size,
            "dateCreated": artifact.created_at.to_rfc3339(),
            "headers": {"Content-Type": "application/octet-stream"},
            "data": {"features": object.map(|object| object.features.clone()).unwrap_or_default()},
        }))
    }
}

/// The id that the build gave a mapping: `sentry-cli proguard upload --uuid` says it by the name alone.
fn mapping_id(name: &str) -> Option<&str> {
    name.strip_prefix("/proguard/")?.strip_suffix(".txt")
}

/// That of several projects which is furthest from its end.
fn slowest(states: Vec<Progress>) -> Progress {
    let rank = |state: &Progress| match state {
        Progress::Failed(_) => 0,
        Progress::Missing(_) => 1,
        Progress::Created => 2,
        Progress::Assembling => 3,
        Progress::Done(_) => 4,
    };
    states.into_iter().min_by_key(rank).unwrap_or(Progress::Created)
}

fn describe(state: &Progress) -> Value {
    let (word, missing, detail) = match state {
        Progress::Missing(chunks) => {
            ("not_found", chunks.iter().map(hex::encode).collect::<Vec<_>>(), None)
        }
        Progress::Created => ("created", Vec::new(), None),
        Progress::Assembling => ("assembling", Vec::new(), None),
        Progress::Done(_) => ("ok", Vec::new(), None),
        Progress::Failed(reason) => ("error", Vec::new(), Some(reason)),
    };
    json!({"state": word, "missingChunks": missing, "detail": detail})
}

fn checksum(text: &str) -> Result<[u8; 20]> {
    let mut sum = [0; 20];
    hex::decode_to_slice(text, &mut sum)
        .map_err(|_| Error::invalid("checksum", "is a SHA-1, in 40 hexadecimal digits"))?;
    Ok(sum)
}

fn checksums(texts: &[String]) -> Result<Vec<[u8; 20]>> {
    texts.iter().map(|text| checksum(text)).collect()
}

/// What was uploaded late is looked for again.
pub(super) async fn reprocess(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((org, project)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let acting = crashes.writer(&principal, &org).await?;
    let project = crashes.project(&acting, &project).await?;
    crashes.reprocess_found(&project).await?;
    Ok(Json(json!({})))
}
