//! Pages: what their browsers ask, are told, and send by themselves.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Bare, KEY, PICKY, one_event, reply};

#[tokio::test]
async fn a_browser_that_asks_first_is_answered_without_a_key() {
    let bare = Bare::start().await;
    for path in ["/api/42/envelope/", "/api/42/store/", "/api/tunnel/", "/api/42/cron/a/"] {
        let request = bare.request(Method::OPTIONS, path);
        let request = request
            .header("origin", "https://shop.example.com")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,x-sentry-auth,x-mine");
        let reply = reply(request).await.expect(204);
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        let headers = reply.header("access-control-allow-headers");
        assert_eq!(headers, Some("content-type,x-sentry-auth,x-mine"));
        assert!(reply.header("access-control-allow-methods").unwrap().contains("POST"));
        assert_eq!(reply.header("access-control-max-age"), Some("3600"));
    }
}

#[tokio::test]
async fn a_page_sends_only_to_projects_that_allow_its_origin() {
    let bare = Bare::start().await;
    for (key, origin, status) in [
        (KEY, "https://anywhere.org", 200),
        (KEY, "null", 200),
        (PICKY, "https://app.example.com", 200),
        (PICKY, "https://evil.org", 403),
        (PICKY, "null", 403),
    ] {
        let path = format!("/api/42/envelope/?sentry_key={key}&sentry_version=7");
        let request = bare.request(Method::POST, &path).header("origin", origin);
        // As fetch sends it without asking first.
        let request = request.header("content-type", "text/plain;charset=UTF-8");
        let reply = reply(request.body(one_event())).await.expect(status);
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        let exposed = reply.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("x-sentry-rate-limits") && exposed.contains("retry-after"));
        assert_eq!(bare.given().len(), usize::from(status == 200), "{key} {origin}");
    }
    // What is no browser says no origin.
    bare.envelope_of(PICKY, one_event()).await.expect(200);
}

#[tokio::test]
async fn reports_of_browsers_become_events() {
    let bare = Bare::start().await;
    let csp = json!({"csp-report": {
        "document-uri": "https://shop.example.com/cart", "blocked-uri": "https://evil.org/x.js",
        "violated-directive": "script-src 'self'", "effective-directive": "script-src",
    }});
    let modern = json!([
        {"type": "csp-violation", "age": 1, "url": "https://shop.example.com/", "body": {
            "documentURL": "https://shop.example.com/", "blockedURL": "inline", "effectiveDirective": "style-src"}},
        {"type": "deprecation", "body": {}},
    ]);
    let ct = json!({"expect-ct-report": {"hostname": "shop.example.com", "port": 443}});
    let staple = json!({"expect-staple-report": {"hostname": "shop.example.com", "port": 443}});
    let hpkp =
        json!({"hostname": "shop.example.com", "port": 443, "known-pins": ["pin-sha256=\"a\""]});
    let cases = [
        (csp, "csp", "csp", "Blocked 'script' from 'evil.org'"),
        (modern, "csp", "csp", "Blocked inline code by 'style-src'"),
        (ct, "expect-ct", "expectct", "Expect-CT failed for 'shop.example.com'"),
        (staple, "expect-staple", "expectstaple", "Expect-Staple failed for 'shop.example.com'"),
        (hpkp, "hpkp", "hpkp", "Public key pinning validation failed for 'shop.example.com'"),
    ];
    for (report, logger, member, message) in cases {
        let path = format!(
            "/api/42/security/?sentry_key={KEY}&sentry_release=shop%401.0&sentry_environment=prod"
        );
        let request = bare.request(Method::POST, &path).header("user-agent", "Mozilla/5.0");
        let request = request.header("content-type", "application/csp-report");
        reply(request.body(report.to_string())).await.expect(201);
        let given = bare.given();
        assert_eq!(given.len(), 1, "{report}");
        let event = given[0].json();
        assert_eq!(event["logger"], logger);
        assert_eq!(event["logentry"]["formatted"], message);
        assert!(event[member].is_object(), "{event}");
        assert_eq!(
            (&event["release"], &event["environment"]),
            (&json!("shop@1.0"), &json!("prod"))
        );
        assert_eq!(event["request"]["headers"], json!([["User-Agent", "Mozilla/5.0"]]));
    }
    for bad in ["", "{}", "[]", "7", "{\"csp-report\":7}"] {
        let request = bare.request(Method::POST, &format!("/api/42/security/?sentry_key={KEY}"));
        reply(request.body(bad)).await.refused(400);
    }
}
