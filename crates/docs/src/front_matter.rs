//! What a page says of itself, between two lines of `---`: `key: value`, lists in brackets.

/// The head of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontMatter {
    pub title: String,
    /// One sentence.
    pub summary: String,
    /// One lower-case word; the pages of one stand together.
    pub category: String,
    /// Its place among all pages, lowest first.
    pub order: u32,
    pub tags: Vec<String>,
}

/// The head and the text behind it.
///
/// # Errors
/// What is wrong, for who writes the page.
pub fn parse(source: &str) -> Result<(FrontMatter, &str), String> {
    let rest = source.strip_prefix("---\n").ok_or("the first line is not `---`")?;
    let (head, body) = rest.split_once("\n---\n").ok_or("no second line of `---`")?;
    let mut fields: [(&str, Option<&str>); 5] =
        ["title", "summary", "category", "order", "tags"].map(|name| (name, None));
    for line in head.lines().filter(|line| !line.trim().is_empty()) {
        let (key, value) = line.split_once(':').ok_or(format!("`{line}` is not `key: value`"))?;
        let (key, value) = (key.trim(), value.trim());
        let field = fields.iter_mut().find(|(name, _)| *name == key);
        let (_, slot) = field.ok_or(format!("`{key}` is none of the keys that there are"))?;
        if slot.replace(value).is_some() {
            return Err(format!("`{key}` is there twice"));
        }
    }
    let [title, summary, category, order, tags] = fields.map(|(name, value)| {
        value
            .map(unquoted)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("`{name}` is missing or empty"))
    });
    let category = category?;
    if !category.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return Err(format!("the category `{category}` is not one lower-case word"));
    }
    let order = order?;
    let order = order.parse().map_err(|_| format!("the order `{order}` is not a number"))?;
    let (title, summary) = (title?.to_owned(), summary?.to_owned());
    Ok((
        FrontMatter { title, summary, category: category.to_owned(), order, tags: list(tags?)? },
        body,
    ))
}

fn list(text: &str) -> Result<Vec<String>, String> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let inner = inner.ok_or("`tags` is not a list in brackets")?;
    let items = inner.split(',').map(|item| unquoted(item.trim()));
    Ok(items.filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

fn unquoted(text: &str) -> &str {
    let inside = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "---\ntitle: \"A: b\"\nsummary: What it is.\ncategory: guide\norder: 7\ntags: [one, 'two three']\n---\n# A\n";

    #[test]
    fn a_sound_head_is_read() {
        let (head, body) = parse(SOUND).unwrap();
        assert_eq!(head.title, "A: b");
        assert_eq!((head.category.as_str(), head.order), ("guide", 7));
        assert_eq!(head.tags, ["one", "two three"]);
        assert_eq!(body, "# A\n");
    }

    #[test]
    fn whatever_is_wrong_is_told() {
        for (from, to, told) in [
            ("---\ntitle", "title", "first line"),
            ("\n---\n#", "\n#", "no second line"),
            ("order: 7", "order: soon", "not a number"),
            ("order: 7\n", "", "`order` is missing"),
            ("What it is.", "", "`summary` is missing"),
            ("guide", "Guide book", "lower-case"),
            ("[one, 'two three']", "one", "brackets"),
            ("order: 7", "order: 7\norder: 8", "twice"),
            ("order: 7", "order: 7\ncolour: red", "none of the keys"),
            ("order: 7", "order: 7\nnonsense", "key: value"),
        ] {
            let error = parse(&SOUND.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(told), "{from} -> {to}: {error}");
        }
    }
}
