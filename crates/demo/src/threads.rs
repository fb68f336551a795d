//! Conversations with agents, over some weeks.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Demo,
    crashes::{Act, Acts, Project},
    talks::{self, Says, Talk},
    text,
};

const THREADS: usize = 64;
const MODELS: [(&str, &str); 4] = [
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-opus-4-5"),
    ("anthropic", "claude-haiku-4-5"),
    ("openai", "gpt-5.1"),
];

/// What requests to models were made for.
pub(crate) struct Thread {
    pub(crate) id: Uuid,
    /// Of the team.
    pub(crate) owner: usize,
    pub(crate) begun: DateTime<Utc>,
    pub(crate) model: &'static str,
    /// How often the agent spoke.
    pub(crate) turns: usize,
}

pub(crate) fn plan(
    demo: &mut Demo,
    projects: &[Project],
    acts: &mut Acts,
) -> anyhow::Result<Vec<Thread>> {
    let mut made = Vec::new();
    let talks = talks::all();
    for n in 0..THREADS {
        let Some(talk) = talks.get(n % talks.len().max(1)) else { break };
        let round = n / talks.len().max(1);
        // The newest are of today.
        let shift = demo.chance.between(0.0, 0.2);
        #[expect(clippy::cast_precision_loss, reason = "some dozens")]
        let begun = demo.days_ago(0.02 + (THREADS - 1 - n) as f64 * 0.44 + shift);
        let (provider, model) = demo.chance.one(&MODELS);
        // Those that look first of all see some of their own.
        let owner = if n % 3 == 2 { 0 } else { usize::try_from(demo.chance.number(1, 5))? };
        let id = demo.chance.id(begun);
        let messages = messages(demo, talk, round, begun);
        let turns = talk
            .turns
            .iter()
            .filter(|turn| matches!(turn, Says::Agent(_) | Says::Tool(..)))
            .count();
        let last = messages.last().and_then(|message| message.get("created_at")).cloned();
        let ended =
            last.as_ref().and_then(Value::as_str).and_then(|at| at.parse().ok()).unwrap_or(begun);
        let state = match (n, talk.state) {
            // What goes on just now.
            (_, "working") if n >= THREADS - 4 => json!({"kind": "executing_tools"}),
            (_, "failed") if round == 0 => {
                json!({"kind": "error", "last_error": "the model did not answer in 120 s", "retries": 3})
            }
            _ => json!({"kind": "waiting_for_user_input"}),
        };
        let sha = projects
            .iter()
            .find(|project| project.family.slug == talk.project)
            .and_then(|project| project.releases.get(n % 5))
            .and_then(|release| release.commits.first())
            .cloned();
        let body = json!({
            "title": title(talk, round),
            "tags": talk.tags,
            "is_pinned": n % 13 == 5,
            "visibility": if n % 4 == 1 && owner != 0 { "private" } else { "organization" },
            "workspace": {"root": format!("/home/dev/{}", talk.project), "platform": "linux"},
            "client": {"name": "loom-cli", "version": "0.1.0"},
            "provider": provider,
            "model": model,
            "git": {"remote_url": format!("git@git.example.com:acme/{}.git", talk.project), "branch": talk.branch,
                    "commits": sha.into_iter().collect::<Vec<_>>()},
            "agent_state": state,
            "created_at": text(begun),
            "messages": messages,
        });
        let who = demo.team.nth(owner)?.who.clone();
        let path = format!("/api/threads/T-{id}");
        acts.push((ended.min(demo.now), Act::Put { who: who.clone(), path: path.clone(), body }));
        if n % 9 == 4 {
            let act =
                Act::Post { who, path: format!("{path}/share"), body: json!({"live": n % 2 == 0}) };
            acts.push(((ended + TimeDelta::minutes(3)).min(demo.now), act));
        }
        made.push(Thread { id, owner, begun, model, turns });
    }
    Ok(made)
}

fn title(talk: &Talk, round: usize) -> String {
    match round {
        0 => talk.title.to_owned(),
        n => talk
            .titles
            .get((n - 1) % talk.titles.len().max(1))
            .copied()
            .unwrap_or(talk.title)
            .to_owned(),
    }
}

fn messages(demo: &mut Demo, talk: &Talk, round: usize, begun: DateTime<Utc>) -> Vec<Value> {
    let mut at = begun;
    let mut all = Vec::new();
    // Later ones are shorter, so that they are not all alike.
    let kept = talk.turns.len().saturating_sub(round % 3 * 2).max(2);
    for (n, turn) in talk.turns.iter().take(kept).enumerate() {
        let pause = match turn {
            Says::User(_) => demo.chance.between(20.0, 400.0),
            Says::Agent(_) | Says::Tool(..) => demo.chance.between(2.0, 25.0),
        };
        at = (at + crate::seconds(if n == 0 { 0.0 } else { pause })).min(demo.now);
        let usage = json!({"input_tokens": demo.chance.number(1800, 24_000), "output_tokens": demo.chance.number(60, 1400),
                           "cache_read_tokens": demo.chance.number(0, 16_000)});
        match turn {
            Says::User(words) => {
                all.push(json!({"id": format!("m{n}"), "role": "user", "content": words, "created_at": text(at)}));
            }
            Says::Agent(words) => {
                all.push(json!({"id": format!("m{n}"), "role": "assistant", "content": words, "created_at": text(at), "usage": usage}));
            }
            Says::Tool(name, arguments, result) => {
                let id = format!("call_{n}");
                let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
                all.push(json!({"id": format!("m{n}"), "role": "assistant", "content": null, "tool_calls": [call],
                                "created_at": text(at), "usage": usage}));
                at = (at + crate::seconds(demo.chance.between(0.2, 9.0))).min(demo.now);
                all.push(json!({"id": format!("m{n}r"), "role": "tool", "tool_call_id": id, "tool_name": name,
                                "content": result, "created_at": text(at)}));
            }
        }
    }
    all
}
