//! What is sent: envelopes with one event each, a hundred different faults, every one with an id of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::json;

use crate::{
    load::Request,
    threads::corpus::{Numbers, Vocabulary},
};

/// Of an event, as JSON.
const BYTES: usize = 4096;
const FAULTS: u64 = 100;
const USERS: u64 = 5000;
/// What stands for the id of the event, its number and its user, until it is sent.
const ID: &str = "ffffffffffffffffffffffffffffffff";
const NUMBER: &str = "999999999";
const USER: &str = "888888888";

/// A whole request, and where in it the id, the number and the user stand.
struct Template {
    bytes: Vec<u8>,
    ids: Vec<usize>,
    numbers: Vec<usize>,
    users: Vec<usize>,
}

/// Whatever sends with it sends no event twice.
pub(super) fn request(address: SocketAddr, project: &str, key: &str) -> Request {
    let (words, mut numbers) = (Vocabulary::new(), Numbers(7));
    let templates: Vec<Template> = (0..FAULTS)
        .map(|fault| template(address, project, key, fault, &words, &mut numbers))
        .collect();
    let next = AtomicU64::new(0);
    Request::Each(Arc::new(move |into| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(template) = usize::try_from(number % FAULTS).ok().and_then(|n| templates.get(n))
        else {
            return;
        };
        into.extend_from_slice(&template.bytes);
        // As SDKs make them: from chance.
        let mut chance = Numbers(number);
        let id = format!("{:016x}{:016x}", chance.next(), chance.next());
        let number_text = format!("{number:09}");
        let user = format!("{:09}", number / FAULTS % USERS);
        for (places, text) in
            [(&template.ids, &id), (&template.numbers, &number_text), (&template.users, &user)]
        {
            for at in places {
                if let Some(slot) = into.get_mut(*at..*at + text.len()) {
                    slot.copy_from_slice(text.as_bytes());
                }
            }
        }
    }))
}

fn template(
    address: SocketAddr,
    project: &str,
    key: &str,
    fault: u64,
    words: &Vocabulary,
    numbers: &mut Numbers,
) -> Template {
    let frame = |depth: u64, numbers: &mut Numbers| {
        json!({
            "function": format!("step_{fault}_{depth}"), "module": "shop.orders",
            "filename": "shop/orders.py", "abs_path": "/srv/shop/orders.py",
            "lineno": 40 + depth, "in_app": depth > 3,
            "context_line": format!("    {}", words.prose(numbers, 5)),
        })
    };
    let frames: Vec<_> = (0..8).map(|depth| frame(depth, numbers)).collect();
    let mut event = json!({
        "event_id": ID, "platform": "python", "level": "error", "release": "shop@1.4.2",
        "environment": "production", "server_name": "web-3", "user": {"id": USER},
        "tags": {"region": "eu", "route": format!("/checkout/{fault}")},
        "exception": {"values": [{"type": "ValueError", "value": format!("order {NUMBER} failed"),
            "mechanism": {"type": "generic", "handled": false}, "stacktrace": {"frames": frames}}]},
        "extra": {"note": ""},
    });
    let missing = BYTES.saturating_sub(event.to_string().len());
    let note: String = words.prose(numbers, missing as u64 / 4).chars().take(missing).collect();
    if let Some(slot) = event.pointer_mut("/extra/note") {
        *slot = note.into();
    }
    let event = event.to_string();
    let body = format!(
        "{{\"event_id\":\"{ID}\"}}\n{{\"type\":\"event\",\"length\":{}}}\n{event}\n",
        event.len()
    );
    let text = format!(
        "POST /api/{project}/envelope/?sentry_key={key}&sentry_version=7 HTTP/1.1\r\nhost: {address}\r\n\
         user-agent: sentry.python/2.75.0\r\ncontent-type: application/x-sentry-envelope\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let places = |mark: &str| memchr::memmem::find_iter(text.as_bytes(), mark).collect::<Vec<_>>();
    Template {
        ids: places(ID),
        numbers: places(NUMBER),
        users: places(USER),
        bytes: text.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::request;
    use crate::load::Request;

    #[test]
    fn every_event_has_its_own_id_and_4_kib() {
        let Request::Each(write) = request("127.0.0.1:1".parse().unwrap(), "7", "key") else {
            panic!("the same each time");
        };
        let mut ids = std::collections::HashSet::new();
        for _ in 0..300 {
            let mut bytes = Vec::new();
            write(&mut bytes);
            let text = String::from_utf8(bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            let event: serde_json::Value =
                serde_json::from_str(body.lines().nth(2).unwrap()).unwrap();
            assert!((4000..4200).contains(&event.to_string().len()));
            let id = event["event_id"].as_str().unwrap().to_owned();
            assert!(body.starts_with(&format!("{{\"event_id\":\"{id}\"")));
            assert!(ids.insert(id));
        }
    }
}
