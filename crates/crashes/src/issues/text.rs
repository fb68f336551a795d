//! Words of titles, for the full text index and for what is searched in it: both sides are cut the same
//! way, whatever PostgreSQL takes for a host name or a path.

/// More of one text is not looked at.
const MOST: usize = 4096;

/// Runs of letters and digits in lower case, between spaces; a name in camel case is followed by its
/// parts. To be given to `to_tsvector('simple', …)` and `phraseto_tsquery('simple', …)`.
pub(crate) fn words(text: &str) -> String {
    let text = loom_core::text::cut(text, MOST);
    let mut out = String::with_capacity(text.len() + 16);
    for run in text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty()) {
        push(&mut out, run);
        let parts = parts(run);
        if parts.len() > 1 {
            for part in parts {
                push(&mut out, part);
            }
        }
    }
    out
}

/// What the full text index of an issue is made of.
pub(crate) fn of_issue(
    title: &str,
    culprit: Option<&str>,
    kind: Option<&str>,
    value: Option<&str>,
) -> String {
    [Some(title), culprit, kind, value]
        .into_iter()
        .flatten()
        .map(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn push(out: &mut String, word: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.extend(word.chars().flat_map(char::to_lowercase));
}

/// `TypeError` is `Type` and `Error`, `HTTPError` is `HTTP` and `Error`.
fn parts(run: &str) -> Vec<&str> {
    let chars: Vec<(usize, char)> = run.char_indices().collect();
    let mut cuts = vec![0];
    for window in chars.windows(2) {
        if let [(_, before), (at, here)] = window
            && before.is_lowercase()
            && here.is_uppercase()
        {
            cuts.push(*at);
        }
    }
    for window in chars.windows(3) {
        if let [(_, before), (at, here), (_, next)] = window
            && before.is_uppercase()
            && here.is_uppercase()
            && next.is_lowercase()
        {
            cuts.push(*at);
        }
    }
    cuts.sort_unstable();
    cuts.push(run.len());
    cuts.windows(2)
        .filter_map(|window| match window {
            [from, to] => run.get(*from..*to).filter(|part| !part.is_empty()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn names_are_found_whole_and_by_their_parts() {
        assert_eq!(words("TypeError: x is"), "typeerror type error x is");
        assert_eq!(words("app.views.get_user"), "app views get user");
        assert_eq!(words("HTTPError at /a/b"), "httperror http error at a b");
        assert_eq!(words("Ärger-Ün"), "ärger ün");
        assert_eq!(words(" … "), "");
    }
}
