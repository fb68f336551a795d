//! Selectors: of labels, and of fields.

use serde_json::Value;

/// `a=b`, `a==b`, `a!=b`, `a`, `!a`, `a in (b,c)`, `a notin (b,c)`, with commas between.
#[derive(Clone, Default)]
pub(super) struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Clone)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Selector {
    pub(super) fn parse(labels: Option<&str>, fields: Option<&str>) -> Self {
        let labels = pieces(labels.unwrap_or_default()).iter().map(|piece| test(piece)).collect();
        let fields = pieces(fields.unwrap_or_default())
            .iter()
            .map(|piece| {
                if let Some((path, value)) = piece.split_once("!=") {
                    (path.to_owned(), false, value.to_owned())
                } else {
                    let (path, value) = piece.split_once('=').expect("a field selector");
                    (path.to_owned(), true, value.trim_start_matches('=').to_owned())
                }
            })
            .collect();
        Self { labels, fields }
    }

    pub(super) fn fits(&self, body: &Value) -> bool {
        let labels = &body["metadata"]["labels"];
        self.labels.iter().all(|(name, test)| {
            let value = labels[name].as_str();
            match test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(all) => value.is_some_and(|value| all.iter().any(|one| one == value)),
                Test::NotIn(all) => value.is_none_or(|value| all.iter().all(|one| one != value)),
            }
        }) && self.fields.iter().all(|(path, same, wanted)| {
            let found = path.split('.').fold(body, |at, step| &at[step]).as_str();
            (found.unwrap_or_default() == wanted) == *same
        })
    }
}

fn test(piece: &str) -> (String, Test) {
    let list = |text: &str| {
        let text = text.trim().trim_start_matches('(').trim_end_matches(')');
        text.split(',').map(|one| one.trim().to_owned()).collect()
    };
    if let Some((name, rest)) = piece.split_once(" notin ") {
        (name.trim().to_owned(), Test::NotIn(list(rest)))
    } else if let Some((name, rest)) = piece.split_once(" in ") {
        (name.trim().to_owned(), Test::In(list(rest)))
    } else if let Some((name, value)) = piece.split_once("!=") {
        (name.to_owned(), Test::NotIn(vec![value.to_owned()]))
    } else if let Some((name, value)) = piece.split_once('=') {
        (name.to_owned(), Test::In(vec![value.trim_start_matches('=').to_owned()]))
    } else if let Some(name) = piece.strip_prefix('!') {
        (name.to_owned(), Test::Absent)
    } else {
        (piece.to_owned(), Test::Exists)
    }
}

/// At commas that are not in brackets.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut depth = 0;
    for letter in text.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if letter == ',' && depth == 0 {
            pieces.push(String::new());
        } else {
            pieces.last_mut().unwrap().push(letter);
        }
    }
    pieces.into_iter().map(|piece| piece.trim().to_owned()).filter(|p| !p.is_empty()).collect()
}
