//! Any sequence of writes leaves what a simple model of a thread says.

use http::StatusCode;
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::harness::{App, Person};

/// What may be done; `u8` chooses a message id or a text from a few.
#[derive(Clone, Debug)]
enum Step {
    Put { ids: Vec<u8>, text: u8, title: Option<u8>, stale: bool },
    Append { ids: Vec<u8>, text: u8, expecting: bool },
    Patch { title: Option<u8>, stale: bool },
    Delete { stale: bool },
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let ids = || vec(0_u8..8, 0..6);
    prop_oneof![
        4 => (ids(), 0_u8..3, any::<Option<u8>>(), prop::bool::weighted(0.2))
            .prop_map(|(ids, text, title, stale)| Step::Put { ids, text, title, stale }),
        4 => (ids(), 0_u8..3, any::<bool>())
            .prop_map(|(ids, text, expecting)| Step::Append { ids, text, expecting }),
        2 => (any::<Option<u8>>(), prop::bool::weighted(0.2))
            .prop_map(|(title, stale)| Step::Patch { title, stale }),
        1 => prop::bool::weighted(0.2).prop_map(|stale| Step::Delete { stale }),
        2 => Just(Step::Restore),
    ]
}

/// A thread, as simple as can be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    exists: bool,
    deleted: bool,
    version: i64,
    title: Option<String>,
    /// `(id, text)` in order.
    messages: Vec<(String, String)>,
}

impl Model {
    /// Each id once, as a request must have them.
    fn sent(ids: &[u8], text: u8) -> Vec<(String, String)> {
        let mut once = Vec::new();
        for id in ids {
            let message = (format!("m{id}"), format!("text {text}"));
            if !once.iter().any(|(known, _)| *known == message.0) {
                once.push(message);
            }
        }
        once
    }

    fn drafts(messages: &[(String, String)]) -> Value {
        messages
            .iter()
            .map(|(id, text)| json!({"id": id, "role": "user", "content": text}))
            .collect()
    }

    fn change(&mut self, to: Self) {
        if to != *self {
            *self = Self { version: self.version + 1, ..to };
        }
    }

    /// Does the step to the server and to the model, and holds one against the other.
    async fn step(&mut self, ann: &Person<'_>, id: &str, last_seq: i64, step: &Step) {
        let tag = |stale: bool, version: i64| {
            format!("\"{}\"", if stale { version + 7 } else { version })
        };
        let gone = !self.exists || self.deleted;
        match step {
            Step::Put { ids, text, title, stale } => {
                let messages = Self::sent(ids, *text);
                let title = title.map(|title| format!("title {title}"));
                let document = json!({"title": title, "messages": Self::drafts(&messages)});
                let call = ann.put(id, &document);
                let call =
                    if self.exists { call.if_match(&tag(*stale, self.version)) } else { call };
                let answer = call.await;
                if self.deleted {
                    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
                    assert_eq!(answer.body["code"], "thread_deleted");
                } else if !self.exists {
                    answer.expect(StatusCode::CREATED);
                    *self = Self { exists: true, version: 1, title, messages, deleted: false };
                } else if *stale {
                    let answer = answer.expect_problem(StatusCode::CONFLICT, "version_conflict");
                    assert_eq!(answer.body["server_version"], self.version);
                    assert_eq!(answer.body["client_version"], self.version + 7);
                } else {
                    answer.expect(StatusCode::OK);
                    self.change(Self { title, messages, ..self.clone() });
                }
            }
            Step::Append { ids, text, expecting } => {
                let messages = Self::sent(ids, *text);
                let mut body = json!({"messages": Self::drafts(&messages)});
                if *expecting {
                    body["expected_last_seq"] = json!(last_seq);
                }
                let answer = ann.append(id, &body).await;
                if gone {
                    answer.expect(StatusCode::NOT_FOUND);
                    return;
                }
                answer.expect(StatusCode::OK);
                let mut all = self.messages.clone();
                for message in messages {
                    // One that is known stays as it is.
                    if !all.iter().any(|(known, _)| *known == message.0) {
                        all.push(message);
                    }
                }
                self.change(Self { messages: all, ..self.clone() });
            }
            Step::Patch { title, stale } => {
                let title = title.map(|title| format!("title {title}"));
                let call = ann.patch(id, &json!({"title": title}));
                let answer = call.if_match(&tag(*stale, self.version)).await;
                if gone {
                    answer.expect(StatusCode::NOT_FOUND);
                } else if *stale {
                    answer.expect(StatusCode::CONFLICT);
                } else {
                    answer.expect(StatusCode::OK);
                    self.change(Self { title, ..self.clone() });
                }
            }
            Step::Delete { stale } => {
                let answer = ann.delete(id).if_match(&tag(*stale, self.version)).await;
                if gone {
                    answer.expect(StatusCode::NOT_FOUND);
                } else if *stale {
                    answer.expect(StatusCode::CONFLICT);
                } else {
                    answer.expect(StatusCode::NO_CONTENT);
                    self.change(Self { deleted: true, ..self.clone() });
                }
            }
            Step::Restore => {
                let path = format!("/api/threads/{id}/restore");
                let answer = ann.request(http::Method::POST, &path).await;
                if self.exists {
                    answer.expect(StatusCode::OK);
                    self.change(Self { deleted: false, ..self.clone() });
                } else {
                    answer.expect(StatusCode::NOT_FOUND);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_sequence_of_writes_leaves_what_the_model_says() {
    let app = App::start().await;
    let ann = app.somebody().await;
    let mut runner = TestRunner::deterministic();
    for case in 0..60 {
        let steps = vec(step(), 1..14).new_tree(&mut runner).unwrap().current();
        let id = app.new_thread_id();
        let mut model = Model::default();
        let mut last_seq = 0;
        for (at, step) in steps.iter().enumerate() {
            app.advance(1);
            model.step(&ann, &id, last_seq, step).await;
            let read = ann.read(&id).await;
            let told = format!("case {case}, step {at} of {steps:#?}\n{model:#?}\n{}", read.text);
            if !model.exists || model.deleted {
                assert_eq!(read.status, StatusCode::NOT_FOUND, "{told}");
                continue;
            }
            assert_eq!(read.status, StatusCode::OK, "{told}");
            assert_eq!(read.version(), model.version, "{told}");
            assert_eq!(read.body["title"].as_str(), model.title.as_deref(), "{told}");
            let messages = read.body["messages"].as_array().unwrap();
            let stored: Vec<_> = messages
                .iter()
                .map(|m| {
                    (
                        m["id"].as_str().unwrap().to_owned(),
                        m["content"].as_str().unwrap().to_owned(),
                    )
                })
                .collect();
            assert_eq!(stored, model.messages, "{told}");
            let places: Vec<i64> = messages.iter().map(|m| m["seq"].as_i64().unwrap()).collect();
            assert!(places.is_sorted_by(|a, b| a < b), "{told}");
            let end = read.body["last_seq"].as_i64().unwrap();
            assert!(end >= last_seq && places.iter().all(|seq| *seq <= end), "{told}");
            last_seq = end;
        }
    }
}
