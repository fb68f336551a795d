//! The files of projects, as symbolication asks for them.

use chrono::TimeDelta;
use loom_core::{Error, Result, id::ProjectId, port::BoxFuture};
use loom_symbolication::{
    File, Files, Wanted, bundle::Bundle, normalize_code_id, normalize_debug_id,
};
use sha2::{Digest, Sha256};
use symbolic_common::ByteView;

use super::{
    Artifacts,
    model::What,
    store::{self, Candidate},
};

/// When a file was used last is written at most so often.
const USED: TimeDelta = TimeDelta::days(1);

impl Files for Artifacts {
    fn find<'a>(
        &'a self,
        project: ProjectId,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Option<File>>> {
        Box::pin(async move {
            match self.candidate(project, wanted).await? {
                Some(candidate) => self.file(candidate).await.map(Some),
                None => Ok(None),
            }
        })
    }
}

impl Artifacts {
    async fn candidate(&self, project: ProjectId, wanted: &Wanted) -> Result<Option<Candidate>> {
        let pool = &self.pool;
        match wanted {
            Wanted::Debug { debug_id, code_id, symbols } => {
                let debug_id = debug_id.as_deref().map(normal);
                let code_id = code_id.as_deref().and_then(normalize_code_id);
                let features: &[_] = if *symbols { &["debug", "symtab"] } else { &["unwind"] };
                let (debug_id, code_id) = (debug_id.as_deref(), code_id.as_deref());
                store::by_id(pool, project, What::Debug, debug_id, code_id, features).await
            }
            Wanted::SourceBundle { debug_id } => {
                let id = normal(debug_id);
                let bundle =
                    store::by_id(pool, project, What::Sources, Some(&id), None, &[]).await?;
                if bundle.is_some() {
                    return Ok(bundle);
                }
                // A debug file may carry its sources itself.
                store::by_id(pool, project, What::Debug, Some(&id), None, &["sources"]).await
            }
            Wanted::Mapping { uuid } => {
                store::by_id(pool, project, What::Mapping, Some(&normal(uuid)), None, &[]).await
            }
            Wanted::ScriptById { debug_id, source_map } => {
                let what = script(*source_map);
                store::by_id(pool, project, what, Some(&normal(debug_id)), None, &[]).await
            }
            Wanted::ScriptByUrl { release, dist, url, source_map } => {
                let dist = dist.as_deref().unwrap_or_default();
                let urls = forms(url);
                let what = script(*source_map);
                let found = store::by_url(pool, project, what, release, dist, &urls).await?;
                if found.is_some() || !source_map {
                    return Ok(found);
                }
                // The URL is the script's: its map is where the bundle says.
                let script =
                    store::by_url(pool, project, What::Script, release, dist, &urls).await?;
                let Some((script, map)) =
                    script.and_then(|s| s.source_map.clone().map(|map| (s, map)))
                else {
                    return Ok(None);
                };
                let urls = forms(&join(script.url.as_deref().unwrap_or(url), &map));
                store::by_url(pool, project, what, release, dist, &urls).await
            }
        }
    }

    /// Its content on this machine: the file itself, or what is unpacked of a bundle.
    async fn file(&self, found: Candidate) -> Result<File> {
        let now = self.clock.now();
        if now - found.last_used_at >= USED {
            store::used(&self.pool, found.artifact_id, now).await?;
        }
        let whole = self.local(&found.location).await?;
        let blob: [u8; 32] = found.sha256.as_slice().try_into().map_err(Error::internal)?;
        let (path, digest, name) = match &found.entry {
            None => (whole, blob, found.name),
            Some(entry) => {
                // The content of an entry never changes: bundle and name are as good as a digest of it.
                let mut digest = Sha256::new();
                digest.update(blob);
                digest.update(entry.as_bytes());
                let digest: [u8; 32] = digest.finalize().into();
                let wanted = entry.clone();
                let path = self
                    .cache
                    .get(&hex::encode(digest), |to| async move {
                        let unpack = move || unpack(&whole, &wanted, &to);
                        tokio::task::spawn_blocking(unpack).await.map_err(Error::internal)?
                    })
                    .await?;
                (path, digest, found.url.unwrap_or_else(|| entry.clone()))
            }
        };
        Ok(File { id: found.artifact_id, digest, name, path, source_map: found.source_map })
    }
}

/// The entry's name is looked up in the bundle and nowhere else: the path is ours.
fn unpack(bundle: &std::path::Path, entry: &str, to: &std::path::Path) -> Result<()> {
    let data = ByteView::open(bundle).map_err(Error::internal)?;
    let mut bundle = Bundle::parse(&data).map_err(Error::internal)?;
    let mut file = std::fs::File::create_new(to).map_err(Error::internal)?;
    bundle.copy(entry, &mut file).map_err(Error::internal)?;
    Ok(())
}

fn script(source_map: bool) -> What {
    if source_map { What::SourceMap } else { What::Script }
}

fn normal(id: &str) -> String {
    normalize_debug_id(id).unwrap_or_else(|| id.to_ascii_lowercase())
}

/// The forms that a URL may have been uploaded under, those that say most first: whole, without its query,
/// at any origin.
pub(super) fn forms(url: &str) -> Vec<String> {
    let bare = url.split(['?', '#']).next().unwrap_or(url);
    let mut forms = vec![url.to_owned(), bare.to_owned()];
    for form in [url, bare] {
        if let Some((_, rest)) = form.split_once("://") {
            // `file:///app.js` and `app:///app.js` have no host.
            let path = rest.find('/').map_or("/", |at| rest.split_at(at).1);
            forms.push(format!("~{path}"));
        } else if form.starts_with('/') {
            forms.push(format!("~{form}"));
        }
    }
    let mut seen = std::collections::HashSet::new();
    forms.retain(|form| seen.insert(form.clone()));
    forms
}

/// A reference, from where it stands.
fn join(base: &str, reference: &str) -> String {
    if reference.contains("://") || reference.starts_with("~/") {
        return reference.to_owned();
    }
    let (origin, path) = match base.split_once("://") {
        Some((scheme, rest)) => {
            let at = rest.find('/').unwrap_or(rest.len());
            let (host, path) = rest.split_at(at);
            (format!("{scheme}://{host}"), path.to_owned())
        }
        None => match base.strip_prefix('~') {
            Some(path) => ("~".to_owned(), path.to_owned()),
            None => (String::new(), base.to_owned()),
        },
    };
    if reference.starts_with('/') {
        return format!("{origin}{reference}");
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in reference.split('/') {
        match part {
            "." => {}
            ".." => {
                if parts.len() > 1 {
                    parts.pop();
                }
            }
            part => parts.push(part),
        }
    }
    format!("{origin}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::{forms, join};

    #[test]
    fn a_script_is_found_under_the_forms_that_its_url_may_have_been_uploaded_with() {
        assert_eq!(
            forms("https://x.io/a/app.js?v=2"),
            ["https://x.io/a/app.js?v=2", "https://x.io/a/app.js", "~/a/app.js?v=2", "~/a/app.js"]
        );
        assert_eq!(forms("app:///index.js"), ["app:///index.js", "~/index.js"]);
        assert_eq!(forms("/srv/a.js"), ["/srv/a.js", "~/srv/a.js"]);
        assert_eq!(forms("~/a.js"), ["~/a.js"]);
    }

    #[test]
    fn a_map_is_where_the_script_says() {
        for (base, reference, joined) in [
            ("~/static/app.js", "app.js.map", "~/static/app.js.map"),
            ("~/static/app.js", "../maps/app.map", "~/maps/app.map"),
            ("~/app.js", "../../app.map", "~/app.map"),
            ("https://x.io/a/app.js", "/m/app.map", "https://x.io/m/app.map"),
            ("https://x.io/a/app.js", "https://y.io/app.map", "https://y.io/app.map"),
            ("https://x.io/a/app.js", "./app.map", "https://x.io/a/app.map"),
        ] {
            assert_eq!(join(base, reference), joined);
        }
    }
}
