//! The pages of `docs/` as they are served, and as they must be written.

use std::collections::BTreeSet;

use loom_docs::{Docs, PAGES, parse_front_matter};

use crate::{BROWSER, Guide};

#[test]
fn every_page_has_sound_front_matter() {
    assert!(PAGES.len() >= 8);
    let mut categories = BTreeSet::new();
    for (path, source) in PAGES {
        let (head, body) =
            parse_front_matter(source).unwrap_or_else(|fault| panic!("{path}: {fault}"));
        assert!(head.summary.ends_with('.'), "{path}: the summary is a sentence");
        assert!(!head.tags.is_empty(), "{path}: no tags");
        let title = format!("# {}\n", head.title);
        assert!(body.trim_start().starts_with(&title), "{path}: the heading is not the title");
        categories.insert(head.category);
        // Routes of ours that a page of this name would hide behind.
        assert!(!["search", "page.css"].contains(path), "{path} is taken");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-/".contains(c);
        assert!(path.chars().all(plain), "{path}: lower-case letters, digits and hyphens");
    }
    assert!(categories.len() < 8, "{categories:?}: is one of them a misspelt other?");
}

/// The values of `href="…"`.
fn links(html: &str) -> Vec<&str> {
    html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[tokio::test]
async fn every_link_between_pages_leads_to_a_page_and_a_section() {
    let guide = Guide::new();
    let mut followed = 0;
    for (path, _) in PAGES {
        let page = guide.get(&format!("/docs/{path}")).await.expect(200);
        for link in links(&page.text) {
            let (to, anchor) = link.split_once('#').unwrap_or((link, ""));
            if !(to.is_empty() || to.starts_with("/docs")) {
                let known = ["https://", "http://", "mailto:", "/api"];
                assert!(known.iter().any(|start| to.starts_with(start)), "{path}: {link}");
                continue;
            }
            let target = if to.is_empty() { format!("/docs/{path}") } else { to.to_owned() };
            let target = guide.get(&target).await;
            assert_eq!(target.status, 200, "{path}: {link} leads nowhere");
            let has = anchor.is_empty() || target.text.contains(&format!("id=\"{anchor}\""));
            assert!(has, "{path}: {link} leads to no section");
            followed += 1;
        }
    }
    assert!(followed > 50);
}

#[tokio::test]
async fn a_page_is_html_or_its_own_source() {
    let guide = Guide::new();
    let page = guide.get("/docs/operations").await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text.contains("<h2 id=\"health\">") && page.text.contains("<table>"));
    assert!(page.text.contains("aria-current=\"page\">Operations<"));
    assert!(!page.text.contains("order: 50"), "the front matter is not part of the page");
    let (_, source) = PAGES.iter().find(|(path, _)| *path == "operations").unwrap();
    let markdown = [("accept", "text/markdown")];
    for answer in [
        guide.get("/docs/operations.md").await,
        guide.get_with("/docs/operations.md", &[BROWSER]).await,
        guide.get_with("/docs/operations", &markdown).await,
    ] {
        assert_eq!(answer.header("content-type"), "text/markdown; charset=utf-8");
        assert_eq!(answer.text, *source);
    }
}

#[tokio::test]
async fn the_overview_lists_every_page() {
    let guide = Guide::new();
    for path in ["/docs", "/docs/"] {
        let overview = guide.get(path).await.expect(200);
        for (path, _) in PAGES {
            assert!(overview.text.contains(&format!("href=\"/docs/{path}\"")), "{path}");
        }
    }
}

#[tokio::test]
async fn what_the_caller_has_already_is_not_sent_again() {
    let guide = Guide::new();
    for path in ["/docs", "/docs/llm", "/docs/llm.md", "/docs/page.css"] {
        let whole = guide.get(path).await.expect(200);
        let etag = whole.header("etag").to_owned();
        assert!(etag.len() > 20, "{path}: {etag}");
        let strong = etag.trim_start_matches("W/").to_owned();
        for known in [etag.as_str(), &strong, &format!("\"other\", {etag}"), "*"] {
            let answer = guide.get_with(path, &[("if-none-match", known)]).await.expect(304);
            assert_eq!((answer.text.as_str(), answer.header("etag")), ("", etag.as_str()));
        }
        guide.get_with(path, &[("if-none-match", "\"other\"")]).await.expect(200);
    }
    let etag = guide.get("/docs/llm").await.header("etag").to_owned();
    assert_ne!(etag, guide.get("/docs/llm.md").await.header("etag"));
    assert_ne!(etag, guide.get("/docs/threads").await.header("etag"));
}

#[tokio::test]
async fn folders_have_pages_too() {
    let page = "---\ntitle: One\nsummary: The first.\ncategory: notes\norder: 1\ntags: []\n---\n# One\n\n[two](../two.md#x)\n";
    let guide = Guide::of(&Docs::of(&[("notes/one", page), ("two", "# no head\n\n## X\n")]));
    let one = guide.get("/docs/notes/one").await.expect(200);
    assert!(one.text.contains("href=\"/docs/two#x\""), "{}", one.text);
    guide.get("/docs/notes/one.md").await.expect(200);
    guide.get("/docs/notes").await.expect(404);
    guide.get("/docs/notes/two").await.expect(404);
    // Without a head it is there nevertheless, under its own name.
    assert!(guide.get("/docs/two").await.expect(200).text.contains("<title>two - Loom"));
    assert_eq!(guide.find("q=no+head").await, ["two"]);
}
