//! Masking what looks like a secret, in a client's own JSON too, of which all else stays as it came.

use std::{borrow::Cow, collections::BTreeMap};

use loom_redact::{Counts, Redactor};

use crate::{
    draft::{Append, ThreadDraft},
    message::{Message, MessageDraft},
    model::AgentState,
    patch::ThreadPatch,
    raw::Raw,
};

/// Masks, and counts what it masked.
pub(crate) struct Masker {
    redactor: Redactor,
    found: Counts,
}

impl Masker {
    pub(crate) fn new() -> Self {
        Self { redactor: (*loom_redact::shared()).clone(), found: Counts::default() }
    }

    /// How many secrets of each kind were masked until now.
    pub(crate) fn found(&self) -> BTreeMap<&'static str, u32> {
        self.found.iter().map(|(kind, count)| (kind.label(), count)).collect()
    }

    /// Counts what another one masked, too.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.found.merge(&other.found);
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn text(&mut self, text: &mut String) {
        let (masked, counts) = self.redactor.redact_counted(text);
        if let Cow::Owned(masked) = masked {
            self.found.merge(&counts);
            *text = masked;
        }
    }

    fn optional(&mut self, text: &mut Option<String>) {
        if let Some(text) = text {
            self.text(text);
        }
    }

    pub(crate) fn raw(&mut self, raw: &mut Raw) {
        // Nearly always there is nothing, and then nothing is taken apart.
        if self.redactor.is_clean(raw.get()) && !raw.get().contains('\\') {
            return;
        }
        let masked = self.json(raw.get());
        if let Some(Ok(masked)) = masked.map(Raw::try_from) {
            *raw = masked;
        }
    }

    /// The JSON text with its strings masked; none when there is nothing to mask.
    fn json(&mut self, json: &str) -> Option<String> {
        let mut out = String::new();
        let mut copied = 0;
        let mut key: Option<String> = None;
        let mut at = 0;
        while let Some(start) = json.get(at..)?.find('"').map(|found| at + found) {
            let end = string_end(json, start)?;
            let literal = json.get(start..end)?;
            at = end;
            let text: String = serde_json::from_str(literal).ok()?;
            let masked = if json.get(end..)?.trim_start().starts_with(':') {
                let masked = self.value(None, &text);
                key = Some(text);
                masked
            } else {
                self.value(key.take().as_deref(), &text)
            };
            if let Some(masked) = masked {
                out.push_str(json.get(copied..start)?);
                out.push_str(&serde_json::to_string(&masked).ok()?);
                copied = end;
            }
        }
        if copied == 0 {
            return None;
        }
        out.push_str(json.get(copied..)?);
        Some(out)
    }

    /// A string, masked; what it is called may be what makes it a secret.
    fn value(&mut self, key: Option<&str>, text: &str) -> Option<String> {
        let (masked, counts) = self.redactor.redact_counted(text);
        if let Cow::Owned(masked) = masked {
            self.found.merge(&counts);
            return Some(masked);
        }
        let prefix = format!("{}=", key?);
        let assignment = format!("{prefix}{text}");
        let (masked, counts) = self.redactor.redact_counted(&assignment);
        let masked = masked.strip_prefix(&prefix).filter(|masked| *masked != text)?.to_owned();
        self.found.merge(&counts);
        Some(masked)
    }

    pub(crate) fn draft(&mut self, draft: &mut ThreadDraft) {
        self.optional(&mut draft.title);
        for tag in draft.tags.iter_mut().flatten() {
            self.text(tag);
        }
        if let Some(state) = &mut draft.agent_state {
            self.state(state);
        }
        if let Some(extra) = &mut draft.extra {
            self.raw(extra);
        }
        self.drafts(&mut draft.messages);
    }

    pub(crate) fn append(&mut self, append: &mut Append) {
        if let Some(title) = &mut append.title {
            self.optional(title);
        }
        for tag in append.tags.iter_mut().flatten().flatten() {
            self.text(tag);
        }
        if let Some(state) = &mut append.agent_state {
            self.state(state);
        }
        if let Some(Some(extra)) = &mut append.extra {
            self.raw(extra);
        }
        self.drafts(&mut append.messages);
    }

    pub(crate) fn patch(&mut self, patch: &mut ThreadPatch) {
        if let Some(title) = &mut patch.title {
            self.optional(title);
        }
        for tag in patch.tags.iter_mut().flatten().flatten() {
            self.text(tag);
        }
        if let Some(state) = &mut patch.agent_state {
            self.state(state);
        }
        if let Some(Some(extra)) = &mut patch.extra {
            self.raw(extra);
        }
    }

    fn state(&mut self, state: &mut AgentState) {
        self.optional(&mut state.last_error);
        for call in &mut state.pending_tool_calls {
            self.raw(call);
        }
    }

    fn drafts(&mut self, messages: &mut [MessageDraft]) {
        for message in messages {
            let all = [&mut message.content, &mut message.tool_calls, &mut message.usage];
            for raw in all.into_iter().flatten() {
                self.raw(raw);
            }
        }
    }

    pub(crate) fn message(&mut self, message: &mut Message) {
        self.raw(&mut message.content);
        if let Some(calls) = &mut message.tool_calls {
            self.raw(calls);
        }
    }
}

/// Behind the string that begins at `start`.
fn string_end(json: &str, start: usize) -> Option<usize> {
    let mut bytes = json.as_bytes().iter().enumerate().skip(start + 1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at + 1),
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(json: &str) -> (String, u32) {
        let mut raw = Raw::try_from(json.to_owned()).unwrap();
        let mut masker = Masker::new();
        masker.raw(&mut raw);
        (raw.get().to_owned(), masker.found().values().sum())
    }

    const TOKEN: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";

    #[test]
    fn only_strings_that_hold_a_secret_change() {
        let json = format!(
            r#"[ {{"b": 1.0, "a":"say \"hi\" \u00e9", "text":"use {TOKEN} now", "z":1e2}} ]"#
        );
        let (masked, found) = masked(&json);
        assert_eq!(
            masked,
            json.replace(TOKEN, "[redacted:github-token]"),
            "all else stays as it came"
        );
        assert_eq!(found, 1);
    }

    #[test]
    fn the_name_of_a_member_makes_its_value_a_secret() {
        let (out, found) =
            masked(r#"{"db_password":"tulip-and-rose","code":"print(1)","state":"open"}"#);
        assert!(
            !out.contains("tulip") && out.contains("print(1)") && out.contains("open"),
            "{out}"
        );
        assert_eq!(found, 1);
    }

    #[test]
    fn a_secret_that_is_the_name_of_a_member_is_found() {
        let (out, found) = masked(&format!(r#"{{"by_token": {{"{TOKEN}": 1.0}}, "n":2}}"#));
        assert_eq!(out, r#"{"by_token": {"[redacted:github-token]": 1.0}, "n":2}"#);
        assert_eq!(found, 1);
    }

    #[test]
    fn a_secret_in_json_in_a_string_is_found() {
        let inner = format!(r#"{{"cmd":"export T={TOKEN}"}}"#);
        let json = format!(r#"[{{"arguments":{}}}]"#, serde_json::to_string(&inner).unwrap());
        let (masked, _) = masked(&json);
        assert!(!masked.contains("ghp_"), "{masked}");
        assert!(Raw::try_from(masked).is_ok());
    }

    #[test]
    fn clean_text_is_left_alone() {
        for json in [r#""plain""#, r#"{"a":["x",{"b":"\\\"y\\\""}]}"#, "null", r#""""#] {
            assert_eq!(masked(json), (json.to_owned(), 0));
        }
    }
}
