//! Ranking: which pages answer a query best.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    index::{Index, TermId, count},
    library::{Library, Page},
    query::Query,
    snippet::{self, Mark},
    words::Word,
};

/// A page that was found.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct DocsHit {
    /// `GET /docs/{path}` is the page.
    pub path: String,
    pub title: String,
    pub summary: String,
    pub category: String,
    pub tags: Vec<String>,
    /// HTML: the best place, escaped, what was found in `<mark>`.
    pub snippet: String,
    /// The anchor of the section that the snippet is from, when it is below a heading.
    pub section: Option<String>,
    /// Higher is better; 0 when nothing was asked.
    pub score: f32,
}

/// One thing that is looked for: the terms that stand for it, and how well each does.
#[derive(Default)]
struct Wanted(BTreeMap<TermId, f32>);

/// The best `limit` pages; with an empty `text` all, in order.
pub(crate) fn search(
    (library, index): (&Library, &Index),
    text: &str,
    category: Option<&str>,
    limit: usize,
) -> Vec<DocsHit> {
    let pages = library.pages.iter().enumerate();
    let pages = pages.filter(|(_, page)| category.is_none_or(|c| page.head.category == c));
    if text.trim().is_empty() {
        return pages.take(limit).map(|(_, page)| hit(page, 0.0, None)).collect();
    }
    let query = Query::parse(text);
    let wanted = wanted(index, &query);
    let mut scores = vec![(0.0_f32, 0_usize); library.pages.len()];
    for Wanted(terms) in &wanted {
        let mut best: BTreeMap<usize, f32> = BTreeMap::new();
        for (term, fits) in terms {
            for (page, score) in index.scores(*term) {
                let best = best.entry(page).or_default();
                *best = best.max(score * fits);
            }
        }
        for (page, score) in best {
            if let Some((sum, met)) = scores.get_mut(page) {
                *sum += score;
                *met += 1;
            }
        }
    }
    let Some(phrases) = phrases(index, &query) else { return Vec::new() };
    let all = count((wanted.len() + phrases.len()).max(1));
    let mut found = Vec::new();
    for (at, page) in pages {
        let (Some(indexed), Some((sum, met))) = (index.pages.get(at), scores.get(at)) else {
            continue;
        };
        let (mut sum, mut met, mut marks) = (*sum, *met, Vec::new());
        let words = met;
        for (slot, (phrase, idf)) in phrases.iter().enumerate() {
            let (says, places) = index.phrase(indexed, phrase);
            if says > 0.0 {
                sum += says * idf;
                met += 1;
                marks.extend(places.into_iter().map(|range| Mark {
                    range,
                    slot,
                    weight: 2.0 * idf,
                }));
            }
        }
        // A phrase is a condition; of words, a page with all of them comes before one with some.
        if sum > 0.0 && met - words == phrases.len() {
            let met = count(met) / all;
            found.push((sum * met * met, page, indexed, marks));
        }
    }
    found.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    found.truncate(limit);
    let weights = weights(index, &wanted, phrases.len());
    let found = found.into_iter().map(|(score, page, indexed, mut marks)| {
        let tokens = indexed.text_parts().iter().chain(&indexed.wholes);
        marks.extend(tokens.filter_map(|token| {
            let (slot, weight) = weights.get(&token.term).copied()?;
            Some(Mark { range: token.start..token.end, slot, weight })
        }));
        hit(page, score, snippet::best(&page.text, marks))
    });
    found.collect()
}

fn hit(page: &Page, score: f32, best: Option<snippet::Snippet>) -> DocsHit {
    let section = best.as_ref().and_then(|best| {
        let before = |heading: &&crate::render::Heading| heading.range.start <= best.place;
        let heading = page.headings.iter().rfind(before)?;
        (heading.level > 1).then(|| heading.anchor.clone())
    });
    let head = &page.head;
    DocsHit {
        path: page.path.clone(),
        title: head.title.clone(),
        summary: head.summary.clone(),
        category: head.category.clone(),
        tags: head.tags.clone(),
        snippet: best.map_or_else(|| crate::html::escape(&head.summary), |best| best.html),
        section,
        score: (score * 1000.0).round() / 1000.0,
    }
}

fn wanted(index: &Index, query: &Query) -> Vec<Wanted> {
    let mut all = Vec::new();
    for (at, word) in query.words.iter().enumerate() {
        let unfinished = query.unfinished && at + 1 == query.words.len();
        let whole = known(index, &word.term, unfinished);
        if word.parts.len() > 1 && whole.0.is_empty() {
            all.extend(by_parts(index, word, unfinished));
        } else if whole.0.is_empty() {
            all.push(mistyped(index, &word.term));
        } else {
            all.push(whole);
        }
    }
    all
}

/// An identifier that no page has: what has its parts may still be meant.
fn by_parts(index: &Index, word: &Word, unfinished: bool) -> Vec<Wanted> {
    let parts = word.parts.iter().enumerate().map(|(at, part)| {
        let known = known(index, &part.term, unfinished && at + 1 == word.parts.len());
        if known.0.is_empty() { mistyped(index, &part.term) } else { known }
    });
    parts.collect()
}

/// The term itself and, when it may go on, what it may become.
fn known(index: &Index, text: &str, unfinished: bool) -> Wanted {
    let exact = index.exact(text);
    let mut wanted = Wanted::default();
    if unfinished && text.len() > 1 {
        // A word that is there as it is meant so: the rarity of what it could become says nothing then.
        let most = exact.map_or(f32::INFINITY, |term| index.idf(term));
        wanted.0.extend(index.prefixed(text).map(|(term, share)| {
            let fair = (most / index.idf(term).max(f32::EPSILON)).min(1.0);
            (term, fair * (0.3 + 0.5 * share))
        }));
    }
    wanted.0.extend(exact.map(|term| (term, 1.0)));
    wanted
}

fn mistyped(index: &Index, text: &str) -> Wanted {
    let similar = index.similar(text);
    // The nearest are meant; what is further away is there only when nothing is nearer.
    let nearest = similar.iter().map(|(_, errors)| *errors).min();
    let nearest = similar.into_iter().filter(|(_, errors)| Some(*errors) == nearest);
    Wanted(nearest.map(|(term, errors)| (term, 0.6 / count(errors.max(1)))).collect())
}

/// Each phrase as terms, with what it says; none when one has a word that no page has.
fn phrases(index: &Index, query: &Query) -> Option<Vec<(Vec<TermId>, f32)>> {
    let phrases = query.phrases.iter().map(|phrase| {
        let terms = phrase.iter().map(|part| index.exact(part)).collect::<Option<Vec<_>>>()?;
        let idf = terms.iter().map(|term| index.idf(*term)).sum();
        Some((terms, idf))
    });
    phrases.collect()
}

/// What the marks of words weigh in a snippet.
fn weights(index: &Index, wanted: &[Wanted], after: usize) -> BTreeMap<TermId, (usize, f32)> {
    let mut weights = BTreeMap::new();
    for (slot, Wanted(terms)) in wanted.iter().enumerate() {
        for (term, fits) in terms {
            weights.insert(*term, (slot + after, fits * index.idf(*term)));
        }
    }
    weights
}
