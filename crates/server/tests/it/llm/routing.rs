//! Which provider a model is asked of.

use loom_testkit::{Setup, TestApp, llm::MockLlm};
use serde_json::json;

use super::{GPT, Op, SONNET, ask, post};

const KEY: &str = "sk-compatible-4f1d";

fn compatible(setup: Setup, name: &str, mock: &MockLlm) -> Setup {
    let prefix = format!("LOOM_SERVER_LLM_{}", name.to_uppercase().replace('-', "_"));
    setup
        .set(&format!("{prefix}_BASE_URL"), format!("{}/openai/v1/", mock.url()))
        .set(&format!("{prefix}_API_KEY"), KEY)
}

fn without_vendors() -> Setup {
    Setup::default().set("LOOM_SERVER_ANTHROPIC_API_KEY", "").set("LOOM_SERVER_OPENAI_API_KEY", "")
}

#[tokio::test]
async fn a_provider_without_a_credential_is_a_503_that_says_what_to_set() {
    let app = without_vendors().start().await;
    let user = app.user("a@example.com").await;
    for op in Op::ALL {
        let answer = ask(&user, op, op.priced_model()).await.expect(503);
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        let (message, code) = op.error_of(&answer.json());
        let (setting, expected) = if op == Op::Messages {
            ("LOOM_SERVER_ANTHROPIC_API_KEY", "api_error")
        } else {
            ("LOOM_SERVER_OPENAI_API_KEY", "feature_disabled")
        };
        assert!(message.contains(setting), "{message}");
        assert_eq!(code, expected);
    }
    let models = user.get("/v1/models").await.expect(503);
    assert!(models.text.contains("LOOM_SERVER_OPENAI_API_KEY"), "{}", models.text);
    assert!(app.mock.requests().is_empty());
    assert!(app.rows("SELECT 1 FROM llm_requests").await.is_empty());
    let health = user.get("/health").await.expect(200).json();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["components"]["llm_providers"]["status"], "disabled");
}

#[tokio::test]
async fn a_name_before_the_model_chooses_the_provider_and_is_all_that_changes() {
    let mock = MockLlm::start(KEY);
    let setup = Setup::default().set("LOOM_SERVER_LLM_PROVIDERS", "my-groq");
    let app = compatible(setup, "my-groq", &mock).start().await;
    let user = app.user("a@example.com").await;
    let sent = "{ \"x\":1.0, \"model\" : \"my-groq/meta-llama/llama-\\u0033\" ,\"messages\":[]}\n";
    let reply = post(&user, Op::Chat.path(), sent).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = mock.wait_for_request(1).await;
    assert_eq!(seen.path, "/openai/v1/chat/completions");
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    let expected = "{ \"x\":1.0, \"model\" : \"meta-llama/llama-3\" ,\"messages\":[]}\n";
    assert_eq!(seen.body, expected);
    // What the vendors serve goes to them as before.
    ask(&user, Op::Chat, GPT).await.expect(200);
    ask(&user, Op::Messages, SONNET).await.expect(200);
    assert_eq!((mock.requests().len(), app.mock.requests().len()), (1, 2));
    let row = &app.llm_requests(3).await[0];
    assert_eq!(row["provider"], "my-groq");
    assert_eq!(row["model"], "my-groq/meta-llama/llama-3");
    assert_eq!(row["response_model"], "meta-llama/llama-3");
    assert_eq!(row["input_tokens"], 500);
    assert_eq!(row["cost_nanousd"], json!(null));
}

#[tokio::test]
async fn a_renamed_model_and_the_usage_option_go_together() {
    let mock = MockLlm::start(KEY);
    let setup = Setup::default().set("LOOM_SERVER_LLM_PROVIDERS", "groq");
    let app = compatible(setup, "groq", &mock).start().await;
    let user = app.user("a@example.com").await;
    let sent = r#"{"model":"groq/llama-3","stream":true,"messages":[]}"#;
    let reply = post(&user, Op::Chat.path(), sent).await;
    assert!(reply.text().ends_with("data: [DONE]\n\n") && !reply.text().contains("prompt_tokens"));
    let expected = r#"{"stream_options":{"include_usage":true},"model":"llama-3","stream":true,"messages":[]}"#;
    assert_eq!(mock.requests()[0].body, expected);
    assert_eq!(app.llm_requests(1).await[0]["output_tokens"], 40);
}

#[tokio::test]
async fn the_vendors_own_name_may_stand_before_a_model() {
    let app = TestApp::start().await;
    let user = app.user("a@example.com").await;
    ask(&user, Op::Messages, &format!("anthropic/{SONNET}")).await.expect(200);
    ask(&user, Op::Chat, &format!("openai/{GPT}")).await.expect(200);
    let seen: Vec<_> = app.mock.requests().iter().map(|r| r.json()["model"].clone()).collect();
    assert_eq!(seen, [SONNET, GPT]);
    let rows = app.llm_requests(2).await;
    assert_eq!(rows[0]["cost_nanousd"], 7_725_000);
    assert_eq!(rows[1]["cost_nanousd"], 2_400_000);
    // A name that is nobody's is part of the model's.
    ask(&user, Op::Chat, "ft/gpt-4o").await.expect(200);
    assert_eq!(app.mock.requests()[2].json()["model"], "ft/gpt-4o");
}

#[tokio::test]
async fn a_listed_model_goes_to_the_provider_that_lists_it() {
    let mock = MockLlm::start(KEY);
    let setup = Setup::default()
        .set("LOOM_SERVER_LLM_PROVIDERS", "groq")
        .set("LOOM_SERVER_LLM_GROQ_MODELS", "llama-3.3-70b, gpt-oss-120b");
    let app = compatible(setup, "groq", &mock).start().await;
    let user = app.user("a@example.com").await;
    for model in ["llama-3.3-70b", "gpt-oss-120b"] {
        let body = Op::Chat.body(model).to_string();
        assert_eq!(post(&user, Op::Chat.path(), body.clone()).await.status, 200);
        assert_eq!(mock.requests().last().unwrap().body, body);
    }
    ask(&user, Op::Chat, GPT).await.expect(200);
    assert_eq!((mock.requests().len(), app.mock.requests().len()), (2, 1));
}

#[tokio::test]
async fn a_model_that_none_of_several_providers_is_known_for_is_a_404() {
    let (one, two) = (MockLlm::start(KEY), MockLlm::start(KEY));
    let setup = without_vendors().set("LOOM_SERVER_LLM_PROVIDERS", "one,two");
    let app = compatible(compatible(setup, "one", &one), "two", &two).start().await;
    let user = app.user("a@example.com").await;
    for op in [Op::Chat, Op::Responses] {
        let answer = ask(&user, op, "nobodys-model").await.expect(404);
        let (message, code) = op.error_of(&answer.json());
        assert_eq!(code, "model_not_found");
        for part in ["nobodys-model", "one/", "two/"] {
            assert!(message.contains(part), "{message}");
        }
    }
    assert!(one.requests().is_empty() && two.requests().is_empty());
    assert!(app.rows("SELECT 1 FROM llm_requests").await.is_empty());
    ask(&user, Op::Chat, "two/nobodys-model").await.expect(200);
    assert_eq!((one.requests().len(), two.requests().len()), (0, 1));
}

#[tokio::test]
async fn a_model_that_the_only_provider_does_not_know_is_its_own_404() {
    let mock = MockLlm::start(KEY);
    let setup = without_vendors().set("LOOM_SERVER_LLM_PROVIDERS", "one");
    let app = compatible(setup, "one", &mock).start().await;
    let user = app.user("a@example.com").await;
    ask(&user, Op::Chat, "any-model").await.expect(200);
    let answer = ask(&user, Op::Chat, "mock-error-404").await.expect(404);
    assert_eq!(Op::Chat.error_of(&answer.json()).1, "model_not_found");
    // On the other wires it is asked as a chat; the vendor's own models it does not have.
    for op in [Op::Messages, Op::Responses] {
        ask(&user, op, "any-model").await.expect(200);
        assert_eq!(mock.requests().last().unwrap().path, "/openai/v1/chat/completions");
    }
}

#[tokio::test]
async fn a_provider_that_wants_no_key_gets_none() {
    let open = MockLlm::start(KEY);
    let app = without_vendors()
        .set("LOOM_SERVER_LLM_PROVIDERS", "local")
        .set("LOOM_SERVER_LLM_LOCAL_BASE_URL", format!("{}/v1", open.url()))
        .start()
        .await;
    let user = app.user("a@example.com").await;
    // The mock takes no request without a key: it is only looked at what was sent.
    ask(&user, Op::Chat, "m").await.expect(401);
    assert_eq!(open.wait_for_request(1).await.header("authorization"), None);
}

#[tokio::test]
async fn the_models_of_several_providers_are_one_list_with_their_names_before_them() {
    let mock = MockLlm::start(KEY);
    let setup = Setup::default().set("LOOM_SERVER_LLM_PROVIDERS", "groq");
    let app = compatible(setup, "groq", &mock).start().await;
    let user = app.user("a@example.com").await;
    let ids = async || -> Vec<String> {
        let list = user.get("/v1/models").await.expect(200).json();
        let ids = list["data"].as_array().unwrap().iter();
        ids.map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    };
    let both = ids().await;
    assert!(both.contains(&GPT.to_owned()) && both.contains(&format!("groq/{GPT}")), "{both:?}");
    let one = user.get(&format!("/v1/models/groq/{GPT}")).await.expect(200).json();
    assert_eq!(one["object"], "model");
    // One that fails takes nothing from the others.
    mock.enqueue_for("/models", loom_testkit::llm::Script::error(500));
    let vendors = ids().await;
    assert!(vendors.contains(&GPT.to_owned()) && !vendors.iter().any(|id| id.starts_with("groq/")));
}
