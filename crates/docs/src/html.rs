//! The HTML around the pages: frame, navigation, results. No script anywhere.

use std::fmt::Write;

use crate::{
    library::{Library, Page},
    search::DocsHit,
};

/// Text as it stands in HTML, also inside quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    escape_into(&mut html, text);
    html
}

pub(crate) fn escape_into(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
}

/// What the frame shows besides its content.
#[derive(Clone, Copy, Default)]
pub(crate) struct Frame<'a> {
    pub(crate) title: &'a str,
    /// The page that is shown, to be marked in the navigation.
    pub(crate) here: Option<&'a Page>,
    pub(crate) q: &'a str,
    pub(crate) category: Option<&'a str>,
}

pub(crate) fn frame(library: &Library, frame: Frame<'_>, content: &str) -> String {
    let (title, q) = (escape(frame.title), escape(frame.q));
    let navigation = navigation(library, frame.here);
    let mut options = String::from("<option value=\"\">everywhere</option>");
    for (category, _) in library.categories() {
        let selected = if frame.category == Some(category) { " selected" } else { "" };
        let category = escape(category);
        let _ = write!(options, "<option{selected}>{category}</option>");
    }
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - Loom</title>
<link rel="stylesheet" href="/docs/page.css">
</head>
<body>
<a class="skip" href="#content">To the text</a>
<header>
<a class="home" href="/docs">Loom</a>
<form action="/docs/search" role="search">
<input type="search" name="q" value="{q}" maxlength="200" aria-label="Search the documentation" placeholder="Search">
<select name="category" aria-label="Where">{options}</select>
<button>Search</button>
</form>
<a class="contents" href="#pages">All pages</a>
</header>
<div class="columns">
<main id="content">
{content}
</main>
<nav id="pages" aria-label="Pages">
{navigation}
</nav>
</div>
</body>
</html>
"##
    )
}

fn navigation(library: &Library, here: Option<&Page>) -> String {
    let mut html = String::new();
    for (category, pages) in library.categories() {
        let _ = writeln!(html, "<h2>{}</h2>\n<ul>", escape(category));
        for page in pages {
            let is_here = here.is_some_and(|here| here.path == page.path);
            let current = if is_here { " aria-current=\"page\"" } else { "" };
            let (path, title) = (escape(&page.path), escape(&page.head.title));
            let _ = write!(html, "<li><a href=\"/docs/{path}\"{current}>{title}</a>");
            let sections: Vec<_> = page.headings.iter().filter(|h| h.level == 2).collect();
            if is_here && sections.len() > 1 {
                html.push_str("\n<ul>");
                for section in sections {
                    let title = page.text.get(section.range.clone()).unwrap_or_default();
                    let (anchor, title) = (escape(&section.anchor), escape(title));
                    let _ = write!(html, "<li><a href=\"#{anchor}\">{title}</a></li>");
                }
                html.push_str("</ul>");
            }
            html.push_str("</li>\n");
        }
        html.push_str("</ul>\n");
    }
    html
}

pub(crate) fn page(library: &Library, page: &Page) -> String {
    let frame_of = Frame { title: &page.head.title, here: Some(page), ..Frame::default() };
    let path = escape(&page.path);
    let content = format!(
        "{}<p class=\"source\"><a href=\"/docs/{path}.md\">This page as Markdown</a></p>",
        page.html
    );
    frame(library, frame_of, &content)
}

/// All pages with their summaries.
pub(crate) fn index(library: &Library) -> String {
    let mut html = String::from(
        "<h1>Documentation</h1>\n<p>Of this version of the server. Every route is in the <a href=\"/api\">API document</a>.</p>\n",
    );
    for (category, pages) in library.categories() {
        let _ = writeln!(html, "<h2 class=\"category\">{}</h2>\n<dl>", escape(category));
        for page in pages {
            let (path, title) = (escape(&page.path), escape(&page.head.title));
            let summary = escape(&page.head.summary);
            let _ =
                writeln!(html, "<dt><a href=\"/docs/{path}\">{title}</a></dt><dd>{summary}</dd>");
        }
        html.push_str("</dl>\n");
    }
    frame(library, Frame { title: "Documentation", ..Frame::default() }, &html)
}

pub(crate) fn results(
    library: &Library,
    q: &str,
    category: Option<&str>,
    hits: &[DocsHit],
) -> String {
    let asked = escape(q.trim());
    let mut html = if asked.is_empty() {
        "<h1>All pages</h1>\n".to_owned()
    } else if hits.is_empty() {
        format!(
            "<h1>Nothing on “{asked}”</h1>\n<p>Try fewer words, or look through the <a href=\"/docs\">pages</a>.</p>\n"
        )
    } else {
        format!("<h1>Results for “{asked}”</h1>\n")
    };
    html.push_str("<ol class=\"hits\">\n");
    for hit in hits {
        let (path, title) = (escape(&hit.path), escape(&hit.title));
        let (category, snippet) = (escape(&hit.category), &hit.snippet);
        let anchor = hit.section.as_ref().map(|section| format!("#{}", escape(section)));
        let anchor = anchor.unwrap_or_default();
        let _ = writeln!(
            html,
            "<li><a href=\"/docs/{path}{anchor}\">{title}</a> <small>{category}</small><p>{snippet}</p></li>"
        );
    }
    html.push_str("</ol>");
    frame(library, Frame { title: "Search", here: None, q, category }, &html)
}

/// For a browser: what went wrong, with the way back.
pub(crate) fn problem(library: &Library, title: &str, detail: &str) -> String {
    let content = format!(
        "<h1>{}</h1>\n<p>{}</p>\n<p><a href=\"/docs\">All pages</a></p>",
        escape(title),
        escape(detail)
    );
    frame(library, Frame { title, ..Frame::default() }, &content)
}
