//! What the terms of a query mean.

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use loom_core::clock::is_storable;

use super::{
    super::{
        model::{Priority, Status},
        text,
    },
    Assigned, Column, Comparison, Context, CountColumn, Emails, Fault, MAX_BYTES, MAX_TERMS, Match,
    Query, Span, Term, TimeColumn, What,
    lex::{Piece, pieces},
};

const LEVELS: [&str; 5] = ["fatal", "error", "warning", "info", "debug"];
const STATES: &str = "`unresolved` (regressed ones, too), `resolved`, `ignored`, `regressed`, \
                      `assigned`, `unassigned`";
const TIMES: &str = "write `>2026-01-31`, `<=2026-01-31T12:00:00Z`, `2026-01-31` for that day, `-24h` \
                     for the last 24 hours or `+7d` for longer ago (m, h, d, w)";
const LONGEST_TAG_KEY: usize = 200;

/// Reads a query; the addresses that it names are put aside.
pub(crate) fn parse(text: &str, context: Context) -> Result<(Query, Emails), Fault> {
    if text.len() > MAX_BYTES {
        return Err(Fault::new(0, format!("the query is longer than {MAX_BYTES} bytes")));
    }
    let (mut query, mut emails) = (Query::default(), Emails::new());
    for piece in pieces(text)? {
        if query.terms.len() >= MAX_TERMS {
            return Err(Fault::new(piece.at, format!("a query has at most {MAX_TERMS} terms")));
        }
        let negated = piece.negated;
        if let Some((what, inverted)) = what(&piece, context, &mut emails)? {
            query.terms.push(Term { negated: negated != inverted, what });
        }
    }
    Ok((query, emails))
}

/// The meaning of a term, and whether it says the contrary; none for one that says nothing.
fn what(
    piece: &Piece,
    context: Context,
    emails: &mut Emails,
) -> Result<Option<(What, bool)>, Fault> {
    let Some(key) = &piece.key else { return free(piece) };
    let name = key.text.as_str();
    if piece.list.is_none() && piece.value.text.is_empty() && !piece.value.quoted {
        return Err(Fault::new(
            piece.value.at,
            format!("`{name}:` lacks its value; write `!has:{name}` for issues without it"),
        ));
    }
    let plain = |what| Ok(Some((what, false)));
    match name {
        "is" => is(piece).map(Some),
        "has" => {
            let tag = one(piece)?.text.trim_end_matches('*');
            if tag.is_empty() || tag.len() > LONGEST_TAG_KEY {
                return Err(Fault::new(piece.value.at, "`has:` takes the key of a tag"));
            }
            plain(What::Has(tag.to_owned()))
        }
        "level" => {
            let values = words_of(piece, "level", &LEVELS)?;
            plain(What::Text(Column::Level, Match::Any(values)))
        }
        "priority" => {
            let names = Priority::ALL.map(Priority::as_str);
            let values = words_of(piece, "priority", &names)?;
            let of = |value: &String| Priority::ALL.into_iter().find(|p| p.as_str() == value);
            plain(What::Priority(values.iter().filter_map(of).collect()))
        }
        "status" => {
            let names = Status::ALL.map(Status::as_str);
            let values = words_of(piece, "status", &names)?;
            let of = |value: &String| Status::ALL.into_iter().find(|s| s.as_str() == value);
            plain(What::Status(values.iter().filter_map(of).collect()))
        }
        "assigned" | "assigned_to" => {
            assigned(one(piece)?, context, emails).map(|w| Some((w, false)))
        }
        "title" => plain(What::Text(Column::Title, matching(piece)?)),
        "culprit" => plain(What::Text(Column::Culprit, matching(piece)?)),
        "type" | "error.type" => plain(What::Text(Column::Kind, matching(piece)?)),
        "value" | "error.value" => plain(What::Text(Column::Value, matching(piece)?)),
        "platform" => plain(What::Text(Column::Platform, matching(piece)?)),
        "first_release" => plain(What::Text(Column::FirstRelease, matching(piece)?)),
        "last_release" => plain(What::Text(Column::LastRelease, matching(piece)?)),
        "regressed_in" => plain(What::Text(Column::RegressedIn, matching(piece)?)),
        "resolved_in" => plain(What::Text(Column::ResolvedIn, matching(piece)?)),
        "first_seen" | "firstSeen" | "age" => {
            time(TimeColumn::FirstSeen, one(piece)?, context.now).map(|w| Some((w, false)))
        }
        "last_seen" | "lastSeen" => {
            time(TimeColumn::LastSeen, one(piece)?, context.now).map(|w| Some((w, false)))
        }
        "times_seen" | "timesSeen" | "events" => {
            count(CountColumn::Events, one(piece)?).map(|w| Some((w, false)))
        }
        "users" | "users_seen" => count(CountColumn::Users, one(piece)?).map(|w| Some((w, false))),
        "times_regressed" => count(CountColumn::Regressed, one(piece)?).map(|w| Some((w, false))),
        "user.id" | "user.email" | "user.username" | "user.ip" => {
            let part = name.strip_prefix("user.").unwrap_or_default();
            plain(What::Tag("user".to_owned(), labelled(part, matching(piece)?)))
        }
        _ => {
            let tag = name.strip_prefix("tags[").and_then(|rest| rest.strip_suffix(']'));
            let tag = tag.unwrap_or(name);
            if tag.is_empty() || tag.len() > LONGEST_TAG_KEY {
                return Err(Fault::new(key.at, "this is not the key of a tag"));
            }
            if let Some(first) = comparison(&piece.value.text).0.filter(|_| !piece.value.quoted) {
                return Err(Fault::new(
                    piece.value.at,
                    format!(
                        "`{tag}` is a tag, whose values are texts: `{}` is known for `first_seen`, \
                         `last_seen`, `times_seen`, `users_seen` and `times_regressed`",
                        first.as_sql()
                    ),
                ));
            }
            plain(What::Tag(tag.to_owned(), matching(piece)?))
        }
    }
}

fn free(piece: &Piece) -> Result<Option<(What, bool)>, Fault> {
    let value = &piece.value;
    if !value.quoted && matches!(value.text.as_str(), "OR" | "AND") {
        return Err(Fault::new(
            piece.at,
            format!(
                "`{}` is not known: all terms must hold; one of several values is `key:[a, b]`, and \
                 the word itself is `\"{}\"`",
                value.text,
                value.text.to_lowercase()
            ),
        ));
    }
    let words = text::words(&value.text);
    if words.is_empty() {
        return Ok(None);
    }
    let is_one = value.text.chars().all(char::is_alphanumeric) || !value.stars.is_empty();
    let what = if value.quoted || !is_one {
        What::Phrase(words)
    } else {
        What::Word(
            value
                .text
                .chars()
                .filter(|c| c.is_alphanumeric())
                .flat_map(char::to_lowercase)
                .collect(),
        )
    };
    Ok(Some((what, false)))
}

fn is(piece: &Piece) -> Result<(What, bool), Fault> {
    let value = one(piece)?;
    let open = vec![Status::Unresolved, Status::Regressed];
    Ok(match value.text.as_str() {
        "unresolved" | "open" => (What::Status(open), false),
        "resolved" => (What::Status(vec![Status::Resolved]), false),
        "ignored" | "archived" => (What::Status(vec![Status::Ignored]), false),
        "regressed" => (What::Status(vec![Status::Regressed]), false),
        "assigned" => (What::Assigned(Assigned::Anybody), false),
        "unassigned" => (What::Assigned(Assigned::Nobody), false),
        other => {
            return Err(Fault::new(
                value.at,
                format!("`is:{other}` is not known; there are {STATES}"),
            ));
        }
    })
}

fn assigned(value: &Span, context: Context, emails: &mut Emails) -> Result<What, Fault> {
    Ok(What::Assigned(match value.text.as_str() {
        "me" => match context.me {
            Some(me) => Assigned::To(me),
            None => {
                return Err(Fault::new(
                    value.at,
                    "`me` is no user: this credential belongs to none",
                ));
            }
        },
        "none" => Assigned::Nobody,
        "any" => Assigned::Anybody,
        text => match text.parse() {
            Ok(id) => Assigned::To(id),
            Err(_) if text.contains('@') => {
                emails.push(text.to_lowercase());
                Assigned::Email(emails.len() - 1)
            }
            Err(_) => {
                return Err(Fault::new(
                    value.at,
                    format!(
                        "`{text}` is nobody; there are `me`, `none`, `any`, an e-mail address, a user's id"
                    ),
                ));
            }
        },
    }))
}

/// The one value of a term that takes no list.
fn one(piece: &Piece) -> Result<&Span, Fault> {
    match &piece.list {
        None => Ok(&piece.value),
        Some(_) => {
            let name = piece.key.as_ref().map(|key| key.text.as_str()).unwrap_or_default();
            Err(Fault::new(piece.value.at, format!("`{name}:` takes one value, no list")))
        }
    }
}

fn values(piece: &Piece) -> &[Span] {
    piece.list.as_deref().unwrap_or(std::slice::from_ref(&piece.value))
}

/// Values of which there are few.
fn words_of(piece: &Piece, name: &str, known: &[&str]) -> Result<Vec<String>, Fault> {
    let of = |value: &Span| {
        known
            .iter()
            .find(|known| **known == value.text)
            .map(|known| (*known).to_owned())
            .ok_or_else(|| {
                let all: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
                let message =
                    format!("`{name}:{}` is not known; there are {}", value.text, all.join(", "));
                Fault::new(value.at, message)
            })
    };
    values(piece).iter().map(of).collect()
}

fn matching(piece: &Piece) -> Result<Match, Fault> {
    let values = values(piece);
    if let [one] = values
        && !one.stars.is_empty()
    {
        return Ok(Match::Like(like(one)));
    }
    if let Some(starred) = values.iter().find(|value| !value.stars.is_empty()) {
        return Err(Fault::new(starred.at, "a list takes no `*`; in quotes it stands for itself"));
    }
    Ok(Match::Any(values.iter().map(|value| value.text.clone()).collect()))
}

/// The tag `user` says what it is of them: `email:ada@example.com`.
fn labelled(part: &str, matching: Match) -> Match {
    match matching {
        Match::Any(values) => {
            Match::Any(values.into_iter().map(|value| format!("{part}:{value}")).collect())
        }
        Match::Like(pattern) => Match::Like(format!("{part}:{pattern}")),
    }
}

fn like(value: &Span) -> String {
    let mut out = String::with_capacity(value.text.len() + 4);
    for (at, c) in value.text.char_indices() {
        match c {
            '*' if value.stars.contains(&at) => out.push('%'),
            '%' | '_' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

fn comparison(text: &str) -> (Option<Comparison>, &str) {
    let known = [
        (">=", Comparison::GreaterOrEqual),
        ("<=", Comparison::LessOrEqual),
        (">", Comparison::Greater),
        ("<", Comparison::Less),
    ];
    known
        .into_iter()
        .find_map(|(sign, comparison)| Some((Some(comparison), text.strip_prefix(sign)?)))
        .unwrap_or((None, text))
}

fn count(column: CountColumn, value: &Span) -> Result<What, Fault> {
    let (sign, rest) = comparison(&value.text);
    let number = rest.parse().ok().filter(|number: &i64| *number >= 0).ok_or_else(|| {
        let message =
            format!("`{}` is no number; write `100`, `>100`, `>=100`, `<100`, `<=100`", value.text);
        Fault::new(value.at, message)
    })?;
    Ok(What::Count(column, sign.unwrap_or(Comparison::Equal), number))
}

fn time(column: TimeColumn, value: &Span, now: DateTime<Utc>) -> Result<What, Fault> {
    let wrong = || Fault::new(value.at, format!("`{}` is no time; {TIMES}", value.text));
    let text = value.text.as_str();
    let back = |rest: &str| {
        let split = rest.len().checked_sub(1).filter(|at| rest.is_char_boundary(*at))?;
        let (number, unit) = rest.split_at(split);
        let number: u32 = number.parse().ok()?;
        let minutes = match unit {
            "m" => 1,
            "h" => 60,
            "d" => 24 * 60,
            "w" => 7 * 24 * 60,
            _ => return None,
        };
        let back = TimeDelta::try_minutes(i64::from(number) * minutes)?;
        now.checked_sub_signed(back).filter(|at| is_storable(*at))
    };
    if let Some(rest) = text.strip_prefix('-') {
        let at = back(rest).ok_or_else(wrong)?;
        return Ok(What::Time(column, Comparison::GreaterOrEqual, at));
    }
    if let Some(rest) = text.strip_prefix('+') {
        let at = back(rest).ok_or_else(wrong)?;
        return Ok(What::Time(column, Comparison::Less, at));
    }
    let (sign, rest) = comparison(text);
    let day = rest.parse::<NaiveDate>().ok();
    if let Some(day) = day {
        let start = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc();
        let from = start(day);
        let to = day.checked_add_days(Days::new(1)).map(start).ok_or_else(wrong)?;
        if !is_storable(from) || !is_storable(to) {
            return Err(wrong());
        }
        return Ok(match sign {
            None => What::Between(column, from, to),
            // After that day, and before it.
            Some(Comparison::Greater) => What::Time(column, Comparison::GreaterOrEqual, to),
            Some(Comparison::LessOrEqual) => What::Time(column, Comparison::Less, to),
            Some(other) => What::Time(column, other, from),
        });
    }
    let at = rest.parse::<DateTime<Utc>>().map_err(|_| wrong())?;
    if !is_storable(at) {
        return Err(wrong());
    }
    Ok(What::Time(column, sign.unwrap_or(Comparison::Equal), at))
}
