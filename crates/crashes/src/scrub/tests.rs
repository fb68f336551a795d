//! What is masked, and what is not.

use serde_json::json;

use super::*;

fn scrubbed(mut event: Value) -> Value {
    scrub(&mut event, &Settings::default());
    event
}

#[test]
fn fields_that_are_called_as_secrets_are_masked_wherever_they_are() {
    let event = scrubbed(json!({
        "request": {
            "headers": {"Authorization": "Basic YTpi", "X-Api-Key": "k", "Accept": "text/html", "Cookie": "a=b"},
            "cookies": {"theme": "dark", "sid": "1"},
            "env": {"DB_PASSWORD": "p", "PATH": "/bin"},
            "query_string": "page=2&session=abc&access_token=xyz",
            "data": "{\"user\":\"ann\",\"credentials\":{\"a\":1}}",
        },
        "extra": {"deep": [{"Stripe_Secret": 5, "tokens": 12, "max_tokens": 100}]},
        "exception": {"values": [{"stacktrace": {"frames": [{"vars": {"passwd": "'x'", "n": "1"}}]}}]},
        "breadcrumbs": [{"data": {"refreshToken": "r", "url": "/a"}}],
        "session_id": "s-1",
    }));
    assert_eq!(
        event,
        json!({
            "request": {
                "headers": {"Authorization": MARK, "X-Api-Key": MARK, "Accept": "text/html", "Cookie": MARK},
                "cookies": {"theme": MARK, "sid": MARK},
                "env": {"DB_PASSWORD": MARK, "PATH": "/bin"},
                "query_string": "page=2&session=[Filtered]&access_token=[Filtered]",
                "data": "{\"credentials\":\"[Filtered]\",\"user\":\"ann\"}",
            },
            "extra": {"deep": [{"Stripe_Secret": MARK, "tokens": 12, "max_tokens": 100}]},
            "exception": {"values": [{"stacktrace": {"frames": [{"vars": {"passwd": MARK, "n": "1"}}]}}]},
            "breadcrumbs": [{"data": {"refreshToken": MARK, "url": "/a"}}],
            "session_id": "s-1",
        })
    );
}

#[test]
fn secrets_in_texts_are_masked() {
    for (text, expected) in [
        ("paid with 4111 1111 1111 1111 today", "paid with [Filtered] today"),
        ("at 1700000000000 and 4111111111111112", "at 1700000000000 and 4111111111111112"),
        ("login failed: password=hunter2 user=ann", "login failed: password=[Filtered] user=ann"),
        ("{'password': 'hunter2', 'user': 'ann'}", "{'password': '[Filtered]', 'user': 'ann'}"),
        ("postgres://u:hunter2@db/x", "postgres://u:[Filtered]@db/x"),
        ("InvalidToken: unexpected end of input", "InvalidToken: unexpected end of input"),
        ("std::auth::verify failed", "std::auth::verify failed"),
        ("secret: abc", "secret: [Filtered]"),
        ("GET /\nCookie: a=1; b=2; c=3\nAccept: */*", "GET /\nCookie: [Filtered]\nAccept: */*"),
        (
            "curl -H 'Cookie: a=1; b=2' https://x.test",
            "curl -H 'Cookie: [Filtered]' https://x.test",
        ),
        ("Set-Cookie: sid=1; Path=/; HttpOnly", "Set-Cookie: [Filtered]"),
        ("KeyError: 'password'", "KeyError: 'password'"),
    ] {
        let event = scrubbed(json!({"message": text}));
        assert_eq!(event["message"], expected);
        assert_eq!(scrubbed(event.clone()), event);
    }
}

#[test]
fn source_lines_keep_their_names() {
    let event =
        json!({"context_line": "    token = request.headers['x']", "function": "auth::key=1"});
    assert_eq!(scrubbed(event.clone()), event);
}

#[test]
fn a_project_may_say_more_and_less() {
    let settings = Settings::parse(&json!({
        "sensitive_fields": ["tax-id"], "safe_fields": ["csrf_token"], "patterns": ["ACME-\\d{4}"],
    }))
    .unwrap();
    let mut event = json!({
        "extra": {"TaxId": "77", "csrf_token": "public", "note": "see ACME-1234"},
        "request": {"query_string": [["tax_id", "77"], ["a", "b"]], "url": "https://e.org/?taxid=77&a=b"},
        "message": "customer tax_id=77",
    });
    scrub(&mut event, &settings);
    assert_eq!(
        event,
        json!({
            "extra": {"TaxId": MARK, "csrf_token": "public", "note": "see [Filtered]"},
            "request": {"query_string": [["tax_id", MARK], ["a", "b"]], "url": "https://e.org/?taxid=[Filtered]&a=b"},
            "message": "customer tax_id=[Filtered]",
        })
    );
    let mut event = json!({"password": "p", "x": "4111111111111111"});
    let before = event.clone();
    scrub(&mut event, &Settings::parse(&json!({"defaults": false})).unwrap());
    assert_eq!(event, before);
}

#[test]
fn wrong_settings_are_told_by_path() {
    let errors = Settings::parse(&json!({
        "ip": "hide", "patterns": ["(", "a*", 5, "\\w{1000}{1000}"], "sensitive_fields": "x", "safe_fields": ["-"],
        "more": 1, "defaults": "yes",
    }))
    .unwrap_err();
    let mut paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "defaults",
            "ip",
            "more",
            "patterns[0]",
            "patterns[1]",
            "patterns[2]",
            "patterns[3]",
            "safe_fields[0]",
            "sensitive_fields",
        ]
    );
}

#[test]
fn addresses_follow_the_policy() {
    let event = |ip: &str| {
        json!({"user": {"ip_address": ip}, "request": {"headers": [["X-Forwarded-For", "203.0.113.9, 2001:db8:1:2::3"]],
            "env": {"REMOTE_ADDR": "203.0.113.9"}}, "tags": {"client": "203.0.113.9"},
            "contexts": {"runtime": {"version": "10.0.1.7"}}})
    };
    let with = |policy: &str| {
        let mut event = event("203.0.113.9");
        scrub(&mut event, &Settings::parse(&json!({"ip": policy})).unwrap());
        event
    };
    assert_eq!(with("keep"), event("203.0.113.9"));
    let anonymised = with("anonymise");
    assert_eq!(anonymised["user"]["ip_address"], "203.0.113.0");
    assert_eq!(anonymised["request"]["headers"][0][1], "203.0.113.0, 2001:db8:1::");
    assert_eq!(anonymised["tags"]["client"], "203.0.113.0");
    assert_eq!(anonymised["contexts"]["runtime"]["version"], "10.0.1.7");
    let dropped = with("drop");
    assert!(!dropped.to_string().contains("203.0.113"), "{dropped}");
}

#[test]
fn auto_is_the_address_of_the_sender() {
    let client = Some("203.0.113.9".parse().unwrap());
    let mut event = json!({"user": {"ip_address": "{{auto}}", "id": 1}});
    fill_address(&mut event, client);
    assert_eq!(event["user"]["ip_address"], "203.0.113.9");
    let mut event = json!({"sdk": {"settings": {"infer_ip": "auto"}}});
    fill_address(&mut event, client);
    assert_eq!(event["user"]["ip_address"], "203.0.113.9");
    for mut event in
        [json!({}), json!({"user": {"id": 1}}), json!({"user": {"ip_address": "10.0.0.1"}})]
    {
        let before = event.clone();
        fill_address(&mut event, client);
        assert_eq!(event, before);
    }
    let mut event = json!({"user": {"ip_address": "{{auto}}"}});
    fill_address(&mut event, None);
    assert_eq!(event, json!({"user": {}}));
}
