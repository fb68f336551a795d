//! Markdown to HTML that is safe whoever wrote it, and to the plain text that is searched.

use std::{collections::HashMap, ops::Range};

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

/// A page as it is shown and as it is searched.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    pub(crate) html: String,
    /// The text without marks; a line feed between blocks.
    pub(crate) text: String,
    /// Where in `text` the headings stand, in order.
    pub(crate) headings: Vec<Heading>,
}

#[derive(Clone, Debug)]
pub(crate) struct Heading {
    pub(crate) level: usize,
    pub(crate) anchor: String,
    /// In the text.
    pub(crate) range: Range<usize>,
}

/// Renders the page at `path`, to whose folder its links are relative.
pub(crate) fn render(path: &str, markdown: &str) -> Rendered {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let mut rendered = Rendered::default();
    let mut events: Vec<Event<'_>> = Vec::new();
    // Whether each open link is one that is kept.
    let mut links: Vec<bool> = Vec::new();
    let mut heading: Option<(usize, usize)> = None;
    let mut anchors: HashMap<String, usize> = HashMap::new();
    for event in Parser::new_ext(markdown, options) {
        match event {
            // HTML in the Markdown is shown as what it is: text.
            Event::Html(text) | Event::InlineHtml(text) => {
                rendered.text.push_str(&text);
                events.push(Event::Text(text));
            }
            Event::Start(Tag::HtmlBlock) => events.push(Event::Start(Tag::Paragraph)),
            Event::End(TagEnd::HtmlBlock) => {
                rendered.end_block();
                events.push(Event::End(TagEnd::Paragraph));
            }
            // No page has pictures yet; their descriptions stay.
            Event::Start(Tag::Image { .. }) | Event::End(TagEnd::Image) => {}
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let target = target(path, &dest_url);
                links.push(target.is_some());
                if let Some(target) = target {
                    let dest_url = CowStr::from(target);
                    events.push(Event::Start(Tag::Link { link_type, dest_url, title, id }));
                }
            }
            Event::End(TagEnd::Link) => {
                if links.pop().unwrap_or_default() {
                    events.push(Event::End(TagEnd::Link));
                }
            }
            Event::Start(Tag::Heading { .. }) => {
                rendered.end_block();
                heading = Some((events.len(), rendered.text.len()));
                events.push(event);
            }
            Event::End(TagEnd::Heading(level)) => {
                let (at, start) = heading.take().unwrap_or((events.len(), rendered.text.len()));
                let range = start..rendered.text.len();
                let anchor =
                    anchor(rendered.text.get(range.clone()).unwrap_or_default(), &mut anchors);
                if let Some(Event::Start(Tag::Heading { id, .. })) = events.get_mut(at) {
                    *id = Some(anchor.clone().into());
                }
                let link = format!(
                    " <a class=\"anchor\" href=\"#{anchor}\" aria-label=\"Link to this section\">#</a>"
                );
                events.push(Event::InlineHtml(link.into()));
                events.push(event);
                rendered.headings.push(Heading { level: level as usize, anchor, range });
                rendered.end_block();
            }
            Event::Start(Tag::Table(_)) => {
                // Scrolls by itself where the screen is narrow.
                events.push(Event::Html("<div class=\"table\">".into()));
                events.push(event);
            }
            Event::End(TagEnd::Table) => {
                events.push(event);
                events.push(Event::Html("</div>\n".into()));
            }
            event => {
                rendered.collect(&event);
                events.push(event);
            }
        }
    }
    pulldown_cmark::html::push_html(&mut rendered.html, events.into_iter());
    rendered
}

impl Rendered {
    /// What this event adds to the plain text.
    fn collect(&mut self, event: &Event<'_>) {
        match event {
            Event::Text(text) | Event::Code(text) => self.text.push_str(text),
            Event::SoftBreak | Event::HardBreak => self.text.push(' '),
            Event::End(TagEnd::TableCell) => self.text.push_str("  "),
            Event::End(
                TagEnd::Paragraph
                | TagEnd::CodeBlock
                | TagEnd::Item
                | TagEnd::TableHead
                | TagEnd::TableRow,
            ) => self.end_block(),
            _ => {}
        }
    }

    fn end_block(&mut self) {
        let end = self.text.trim_end().len();
        self.text.truncate(end);
        if end > 0 {
            self.text.push('\n');
        }
    }
}

/// Lower-case words with hyphens between; a number behind the second of the same name.
fn anchor(text: &str, taken: &mut HashMap<String, usize>) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut anchor = words.collect::<Vec<_>>().join("-");
    if anchor.is_empty() {
        anchor.push_str("section");
    }
    let count = taken.entry(anchor.clone()).or_default();
    *count += 1;
    if *count > 1 {
        anchor = format!("{anchor}-{count}");
    }
    anchor
}

/// Where a link leads: other pages under `/docs`, the web and this server as written, and nowhere
/// when it is neither (a file of the repository, or a scheme that a link has no business with).
fn target(page: &str, url: &str) -> Option<String> {
    let allowed = ["https://", "http://", "mailto:", "#", "/"];
    if allowed.iter().any(|start| url.starts_with(start)) {
        return Some(url.to_owned());
    }
    let (file, fragment) = url.split_once('#').map_or((url, None), |(file, f)| (file, Some(f)));
    let mut folders: Vec<&str> = page.split('/').collect();
    folders.pop();
    for step in file.split('/') {
        match step {
            "." => {}
            ".." => {
                folders.pop()?;
            }
            step => folders.push(step),
        }
    }
    let file = folders.join("/");
    if file == "openapi.json" {
        return Some("/api/openapi.json".to_owned());
    }
    let page = file.strip_suffix(".md").filter(|page| !page.contains([':', '\\']))?;
    let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    Some(format!("/docs/{page}{fragment}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_pages_to_the_web_or_nowhere() {
        for (page, url, to) in [
            ("a", "b.md", Some("/docs/b")),
            ("a", "./b.md#c-d", Some("/docs/b#c-d")),
            ("adr/one", "two.md", Some("/docs/adr/two")),
            ("adr/one", "../a.md", Some("/docs/a")),
            ("a", "openapi.json", Some("/api/openapi.json")),
            ("a", "https://example.com/x.md", Some("https://example.com/x.md")),
            ("a", "#here", Some("#here")),
            ("a", "/api", Some("/api")),
            ("a", "../.env.example", None),
            ("a", "../../b.md", None),
            ("a", "javascript:alert(1)//.md", None),
            ("a", "JaVaScRiPt:x", None),
            ("a", "data:text/html,x", None),
        ] {
            assert_eq!(target(page, url).as_deref(), to, "{page}: {url}");
        }
    }

    #[test]
    fn markup_in_the_source_is_shown_as_text() {
        let markdown = "# A <b>b</b>\n\n<script>alert(1)</script>\n\ntext <img src=x onerror=y> [x](javascript:z) ![p](q.png)\n\n<div>\n\n`<i>`\n";
        let html = render("a", markdown).html;
        for tag in ["<script", "<img", "<b>", "<div>", "<i>", "javascript:"] {
            assert!(!html.contains(tag), "{tag}: {html}");
        }
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
    }

    #[test]
    fn headings_have_anchors_of_their_own() {
        let rendered = render("a", "# Read & write\n\none\n\n## `GET /x`\n\n## Get X\n\n## ?\n");
        let anchors: Vec<&str> = rendered.headings.iter().map(|h| h.anchor.as_str()).collect();
        assert_eq!(anchors, ["read-write", "get-x", "get-x-2", "section"]);
        assert!(rendered.html.contains("<h2 id=\"get-x-2\">Get X "), "{}", rendered.html);
        let heading = rendered.headings.first().unwrap();
        assert_eq!(&rendered.text[heading.range.clone()], "Read & write");
    }
}
