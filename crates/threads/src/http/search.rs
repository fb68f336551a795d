//! The search over threads.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::extract::State;
use chrono::{DateTime, Utc};
use loom_core::{
    Error, Json, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    page::{self, PageQuery},
    principal::Scope,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Threads,
    list::{Filter, ListQuery},
    message::Role,
    search::{
        MAX_CANDIDATES, content,
        page::{Hit, SearchPage, SearchQuery},
        query::{Query as Wanted, Term},
        rank::{self, Facets, Ranked},
        snippet, typo,
    },
    store::search::{self as store, Candidate, Stretch},
};

/// Of one statement.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Of the statement that looks for all of a query in all texts. Words that are everywhere, in a row that is
/// rare, would take far longer: then the newest texts are looked through until [`TIMEOUT`].
const TIMEOUT_OF_ALL: Duration = Duration::from_millis(600);
/// The same when identifiers were found as they stand already.
const TIMEOUT_OF_MORE: Duration = Duration::from_millis(100);
/// Texts that are looked through by one statement.
const STRETCH: i64 = 2_000;
/// Of the statement that looks for what a misspelt word may have meant.
const TIMEOUT_OF_NAMES: Duration = Duration::from_millis(700);
/// Until there is room for one more search.
const WAIT: Duration = Duration::from_secs(2);
/// Words of a query that are compared with names.
const MAX_MISSPELT: usize = 4;

/// Where a page ends. Ages are as of the first page, so that no thread changes places in between.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Position {
    as_of: DateTime<Utc>,
    score: f64,
    thread: Uuid,
}

/// Find threads by what was said in them, their titles, tags, branches, repositories and commits.
#[utoipa::path(
    get,
    path = "/api/threads/search",
    operation_id = "search_threads",
    tag = "threads",
    params(SearchQuery, ListQuery),
    responses(
        (status = 200, body = SearchPage),
        (status = 400, description = "`invalid_cursor` or `invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`threads:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`search_timeout`: it took too long; or too many searches at once", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn search_threads(
    State(threads): State<Threads>,
    principal: Principal,
    Query(query): Query<SearchQuery>,
    Query(filter): Query<ListQuery>,
) -> Result<Json<SearchPage>> {
    authorize(&principal, Action::Use(Scope::ThreadsRead))?;
    let wanted = Wanted::parse(&query.q)?;
    let limit = query.limit()?;
    let filter = filter.check(&principal)?;
    let role = query.role.map_or("", Role::as_str);
    let asked = Sha256::digest(format!("{role}:{}", wanted.to_tsquery()));
    let asked: String = asked.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let kind = format!("search:{}:{asked}", filter.kind());
    let page = PageQuery { limit: None, cursor: query.cursor };
    let after: Option<Position> = page.after(&kind)?;
    let now = threads.now();
    let search = Search { principal: &principal, filter: &filter, role: query.role };

    let entry = tokio::time::timeout(WAIT, threads.searches.acquire()).await;
    let _entry = entry.map_err(|_| busy())?.map_err(|_| busy())?;
    let mut tx = loom_db::begin(&threads.pool).await?;
    let found = search.run(&mut tx, wanted, after.map_or(now, |after| after.as_of)).await;
    let found = found?;

    let rest = found.ranked.iter().filter(|ranked| {
        after.is_none_or(|after| (ranked.score, ranked.thread) < (after.score, after.thread))
    });
    let rest: Vec<Ranked> = rest.take(limit + 1).cloned().collect();
    let (shown, next_cursor) = page::cut(rest, limit, &kind, |ranked| Position {
        as_of: found.as_of,
        score: ranked.score,
        thread: ranked.thread,
    });
    let hits = show(&mut tx, &principal, &found, shown).await?;
    tx.commit().await?;
    Ok(Json(SearchPage {
        hits,
        total: found.ranked.len(),
        total_is_partial: found.is_partial,
        facets: found.facets,
        corrected: found.corrected,
        next_cursor,
    }))
}

struct Search<'a> {
    principal: &'a Principal,
    filter: &'a Filter,
    role: Option<Role>,
}

struct Found {
    /// What was looked for in the end.
    query: Wanted,
    corrected: Option<String>,
    ranked: Vec<Ranked>,
    facets: Facets,
    is_partial: bool,
    as_of: DateTime<Utc>,
    /// Of threads that were found by a commit.
    commits: HashMap<Uuid, String>,
}

impl Search<'_> {
    async fn run(
        &self,
        db: &mut PgConnection,
        mut query: Wanted,
        as_of: DateTime<Utc>,
    ) -> Result<Found> {
        store::begin(db, millis(TIMEOUT)).await?;
        let mut commits = HashMap::new();
        let mut rows = match (query.commit(), self.role) {
            (Some(commit), None) => {
                let found = store::by_commit(db, self.principal, commit, self.filter).await?;
                let sha = |(sha, row): (String, Candidate)| {
                    commits.insert(row.thread_id, sha);
                    row
                };
                found.into_iter().map(sha).collect()
            }
            _ => Vec::new(),
        };
        let (found, mut is_partial) = self.matches(db, &query).await?;
        rows.extend(found);
        let mut corrected = None;
        if rows.is_empty()
            && let Some(meant) = self.meant(db, &query).await?
        {
            (rows, is_partial) = self.matches(db, &meant).await?;
            if !rows.is_empty() {
                corrected = Some(said(&meant));
                query = meant;
            }
        }
        Ok(Found {
            ranked: rank::by_thread(&rows, as_of),
            facets: rank::facets(&rows),
            is_partial,
            query,
            corrected,
            as_of,
            commits,
        })
    }

    /// What matches, and whether there can be more for which there was no time.
    async fn matches(
        &self,
        db: &mut PgConnection,
        query: &Wanted,
    ) -> Result<(Vec<Candidate>, bool)> {
        let mut rows = match query.of_identifiers() {
            Some(identifiers) => self.candidates(db, &identifiers, None).await?,
            None => Vec::new(),
        };
        if is_full(&rows) {
            return Ok((rows, true));
        }
        let limit = if rows.is_empty() { TIMEOUT_OF_ALL } else { TIMEOUT_OF_MORE };
        store::try_for(db, millis(limit)).await?;
        let tsquery = query.to_tsquery();
        match self.candidates(db, &tsquery, None).await {
            // They are among these, with a better rank.
            Ok(all) => rows = all,
            Err(error) if is_timeout(&error) => {
                store::give_up(db).await?;
                if rows.is_empty() {
                    return self.look_through(db, &tsquery).await;
                }
                return Ok((rows, true));
            }
            Err(error) => return Err(error),
        }
        let is_partial = is_full(&rows);
        Ok((rows, is_partial))
    }

    /// As [`Self::matches`], from the newest text backwards for as long as there is time.
    ///
    /// # Errors
    /// 503 `search_timeout` when nothing was found until then.
    async fn look_through(
        &self,
        db: &mut PgConnection,
        tsquery: &str,
    ) -> Result<(Vec<Candidate>, bool)> {
        let end = Instant::now() + (TIMEOUT - TIMEOUT_OF_ALL);
        let org = self.principal.org;
        let mut before = DateTime::<Utc>::MAX_UTC;
        let mut rows = Vec::new();
        while let Some(stretch) = store::stretch(db, org, before, STRETCH).await? {
            let left = end.saturating_duration_since(Instant::now());
            store::try_for(db, millis(left).max(1)).await?;
            match self.candidates(db, tsquery, Some(stretch)).await {
                Ok(found) => rows.extend(found),
                Err(error) if is_timeout(&error) && !rows.is_empty() => {
                    store::give_up(db).await?;
                    return Ok((rows, true));
                }
                Err(error) => return Err(error),
            }
            if is_full(&rows) {
                return Ok((rows, true));
            }
            before = stretch.from;
        }
        Ok((rows, false))
    }

    async fn candidates(
        &self,
        db: &mut PgConnection,
        tsquery: &str,
        stretch: Option<Stretch>,
    ) -> Result<Vec<Candidate>> {
        store::candidates(db, self.principal, tsquery, self.filter, self.role, stretch).await
    }

    /// As [`Self::correct`]; that it took too long is no failure of a search that has found nothing. (The
    /// transaction has ended then, and nothing more is asked in it.)
    async fn meant(&self, db: &mut PgConnection, query: &Wanted) -> Result<Option<Wanted>> {
        match self.correct(db, query).await {
            Err(error) if is_timeout(&error) => Ok(None),
            found => found,
        }
    }

    /// The query with names in place of words that are nearly so; none when no word is.
    async fn correct(&self, db: &mut PgConnection, query: &Wanted) -> Result<Option<Wanted>> {
        let mut meant = query.clone();
        let mut is_other = false;
        let is_alone = query.wanted().count() == 1;
        for term in meant.words_mut().take(MAX_MISSPELT) {
            let Some(word) = term.word().map(str::to_owned) else { continue };
            if word.chars().count() < typo::MIN_LETTERS {
                continue;
            }
            // A word that is said somewhere is not misspelt; it only is not said with the others.
            let asked = term.to_tsquery();
            if !is_alone && store::is_said(db, self.principal, &asked, self.filter).await? {
                continue;
            }
            let rows = store::similar_names(
                db,
                self.principal,
                &word,
                self.filter,
                millis(TIMEOUT_OF_NAMES),
            )
            .await?;
            let mut names = rows.iter().flat_map(|names| names.split(' '));
            if names.clone().any(|name| name == word) {
                continue;
            }
            if let Some(name) = typo::nearest(&word, &mut names) {
                term.replace(name);
                is_other = true;
            }
        }
        Ok(is_other.then_some(meant))
    }
}

/// Are there as many as are ranked?
fn is_full(rows: &[Candidate]) -> bool {
    i64::try_from(rows.len()).unwrap_or(i64::MAX) >= MAX_CANDIDATES
}

/// The query as words.
fn said(query: &Wanted) -> String {
    let words = query.wanted().map(|term| match term.word() {
        Some(word) => word.to_owned(),
        None => term.parts.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(" "),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The page's threads with their snippets, the only ones that are made.
async fn show(
    db: &mut PgConnection,
    principal: &Principal,
    found: &Found,
    shown: Vec<Ranked>,
) -> Result<Vec<Hit>> {
    if shown.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = shown.iter().map(|ranked| ranked.thread).collect();
    let mut heads = store::heads(db, principal.org, &ids).await?;
    let places: Vec<(Uuid, i64)> = shown
        .iter()
        .filter(|ranked| ranked.seq > 0)
        .map(|ranked| (ranked.thread, ranked.seq))
        .collect();
    let texts = store::texts(db, principal.org, &places).await?;
    let terms: Vec<Term> = found.query.wanted().cloned().collect();
    let mut hits = Vec::with_capacity(shown.len());
    for ranked in shown {
        let Some(thread) = heads.remove(&ranked.thread) else { continue };
        let text = match texts.get(&(ranked.thread, ranked.seq)) {
            Some(text) => text.clone(),
            None => match found.commits.get(&ranked.thread) {
                Some(sha) => format!("commit {sha}"),
                None => content::of_head(&thread).join("\n"),
            },
        };
        hits.push(Hit {
            snippet: snippet::best(&text, terms.iter()),
            score: ranked.score,
            message_seq: (ranked.seq > 0).then_some(ranked.seq),
            role: ranked.role,
            thread,
        });
        tokio::task::yield_now().await;
    }
    Ok(hits)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn is_timeout(error: &Error) -> bool {
    error.code() == store::TIMEOUT_CODE
}

fn busy() -> Error {
    Error::unavailable("too many searches are under way; try again in a moment")
}
