//! The name that was probably meant by one that nothing is called.

/// A word is misspelt by one letter in four at most, and by three in all.
const LETTERS_PER_ERROR: usize = 4;
const MAX_ERRORS: usize = 3;
/// Shorter ones are like too many others.
pub(crate) const MIN_LETTERS: usize = 4;

/// Of the names, the nearest that is near enough; of equals the one that comes first.
pub(crate) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().collect();
    let most = (word.len() / LETTERS_PER_ERROR).min(MAX_ERRORS);
    let mut best: Option<(usize, &str)> = None;
    for name in names {
        let letters: Vec<char> = name.chars().take(word.len() + MAX_ERRORS + 1).collect();
        let errors = distance(&word, &letters);
        if (1..=most).contains(&errors) && best.is_none_or(|(least, _)| errors < least) {
            best = Some((errors, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Letters too many, too few, wrong, or swapped with the next.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at =
                |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut least = (at(&last, j) + usize::from(from != to))
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                least = least.min(at(&before_last, j - 1) + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_meant() {
        let names = ["database", "parseuserinput", "login", "logging", "日本語検索"];
        for (word, expected) in [
            ("databse", Some("database")),
            ("dtaabase", Some("database")),
            ("parseuserinptu", Some("parseuserinput")),
            ("parsuserinputt", Some("parseuserinput")),
            ("lgoin", Some("login")),
            ("database", None),
            ("lion", None),
            ("zzzz", None),
            ("log", None),
        ] {
            assert_eq!(nearest(word, names.into_iter()), expected, "{word}");
        }
    }
}
