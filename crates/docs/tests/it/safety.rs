//! Whatever is asked or written, a page does nothing but be read, and no path leaves the guide.

use loom_docs::Docs;

use crate::{BROWSER, Guide};

const CSP: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[tokio::test]
async fn every_answer_forbids_scripts_and_frames() {
    let guide = Guide::new();
    for path in [
        "/docs",
        "/docs/llm",
        "/docs/llm.md",
        "/docs/search?q=key",
        "/docs/nothing",
        "/docs/page.css",
    ] {
        let answer = guide.get_with(path, &[BROWSER]).await;
        assert_eq!(answer.header("content-security-policy"), CSP, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(!answer.text.contains("<script") && !answer.text.contains(" style="), "{path}");
    }
}

#[tokio::test]
async fn markup_in_a_query_is_text() {
    let guide = Guide::new();
    for q in [
        "%3Cscript%3Ealert(1)%3C/script%3E",
        "%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        "key%22+autofocus+onfocus=%22alert(1)%3Cscript%3E",
        "%3Cscript%3E+key",
        "key+'%3E%3Cscript%3E",
    ] {
        let page = guide.get_with(&format!("/docs/search?q={q}"), &[BROWSER]).await.expect(200);
        assert!(page.text.contains("&lt;script&gt;"), "{q}");
        assert!(!page.text.contains("<script"), "{q}");
        assert!(!page.text.contains("\" onfocus") && !page.text.contains("\" autofocus"), "{q}");
    }
    let page = guide.get_with("/docs/search?q=a&category=%3Cscript%3E", &[BROWSER]).await;
    assert!(!page.expect(422).text.contains("<script"));
}

const EVIL: &str = "---\ntitle: <script>alert(1)</script>\nsummary: <img src=x onerror=alert(2)> sum.\ncategory: evil\norder: 1\ntags: [<b>]\n---\n\
    # <script>alert(1)</script>\n\n## <i onclick=x>needle</i>\n\n<script>needle()</script>\n\n\
    text <svg onload=alert(3)> [needle](javascript:alert(4)) [b](JAVASCRIPT:alert(5)) <javascript:alert(6)>\n\n\
    ```<script>\nneedle </code></pre><script>alert(7)</script>\n```\n\n[x](\"onclick=alert(8).md)\n\n![y](x.png \"z\\\" onerror=\\\"z\")\n";

#[tokio::test]
async fn markup_in_a_page_is_text() {
    let guide = Guide::of(&Docs::of(&[("evil", EVIL)]));
    for path in
        ["/docs", "/docs/evil", "/docs/search?q=needle", "/docs/search?q=onerror", "/docs/search"]
    {
        let page = guide.get_with(path, &[BROWSER]).await.expect(200);
        for tag in [
            "<script",
            "<img",
            "<svg",
            "<i ",
            "<b>",
            "href=\"javascript:",
            "href=\"JAVASCRIPT:",
            "\" onerror",
            "\" onclick",
        ] {
            assert!(!page.text.contains(tag), "{path} has {tag}: {}", page.text);
        }
    }
    // The only markup in a snippet is the mark.
    for q in ["needle", "script", "alert", "onerror"] {
        for hit in
            guide.get(&format!("/docs/search?q={q}")).await.json()["hits"].as_array().unwrap()
        {
            let snippet = hit["snippet"].as_str().unwrap();
            let bare = snippet.replace("<mark>", "").replace("</mark>", "");
            assert!(!bare.contains(['<', '>', '"']), "{q}: {snippet}");
            assert_eq!(snippet.matches("<mark>").count(), snippet.matches("</mark>").count());
        }
    }
    let found = guide.get("/docs/search?q=needle").await.json();
    assert!(found["hits"][0]["snippet"].as_str().unwrap().contains("<mark>needle</mark>"));
}

#[tokio::test]
async fn an_unknown_page_is_a_problem_or_for_a_browser_a_page() {
    let guide = Guide::new();
    let problem = guide.get("/docs/nothing").await.expect(404);
    assert_eq!(problem.header("content-type"), "application/problem+json");
    assert_eq!(problem.json()["code"], "not_found");
    let page = guide.get_with("/docs/nothing", &[BROWSER]).await.expect(404);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text.contains("href=\"/docs/operations\""), "the way on is shown");
}

#[tokio::test]
async fn no_path_leads_out_of_the_guide() {
    let guide = Guide::new();
    for path in [
        "..",
        "../Cargo.toml",
        "..%2fCargo.toml",
        "%2e%2e",
        "%2e%2e/Cargo.toml",
        "%2e%2e%2fREADME.md",
        "..%5cREADME",
        "./llm",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "llm%00",
        "llm%00.md",
        "llm/..",
        "llm/",
        "llm%2f..%2fllm",
        "x/../llm",
        "openapi.json",
        "LLM",
        "llm.md.md",
        ".md",
        "%ff",
        "%252e%252e",
        "adr/../../README",
        "search/x",
        "page.css/x",
    ] {
        let answer = guide.get(&format!("/docs/{path}")).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text);
        assert!(!answer.text.contains("[workspace]") && !answer.text.contains("root:"), "{path}");
    }
}
