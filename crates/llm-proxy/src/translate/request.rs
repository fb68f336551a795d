//! A request to a model, whichever wire it came by. Texts are borrowed from the body that they came in.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

pub(crate) struct Request<'a> {
    pub(crate) model: Cow<'a, str>,
    pub(crate) system: Vec<Text<'a>>,
    pub(crate) turns: Vec<Turn<'a>>,
    pub(crate) tools: Vec<Tool<'a>>,
    /// Is it to search the web on its own?
    pub(crate) web_search: Option<WebSearch<'a>>,
    pub(crate) tool_choice: Option<ToolChoice<'a>>,
    /// May the model call several tools at once? None: it may.
    pub(crate) parallel_tools: Option<bool>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) top_k: Option<u32>,
    pub(crate) stop: Vec<Cow<'a, str>>,
    pub(crate) thinking: Option<Thinking>,
    pub(crate) format: Option<Format<'a>>,
    pub(crate) verbosity: Option<Verbosity>,
    /// Only capacity of the ordinary kind.
    pub(crate) standard_tier: bool,
    /// An opaque name of the user in question.
    pub(crate) user: Option<Cow<'a, str>>,
    pub(crate) stream: bool,
    /// What the members are called where the request came from.
    pub(crate) names: &'static Names,
}

/// What a member is called on a surface, for a complaint about it.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) messages: &'static str,
    pub(crate) max_tokens: &'static str,
    pub(crate) budget: &'static str,
    pub(crate) stop: &'static str,
    pub(crate) format: &'static str,
    pub(crate) verbosity: &'static str,
    /// The limit of a reply where the provider wants one and the client gave none.
    pub(crate) default_max_tokens: DefaultMax,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum DefaultMax {
    /// As the native API promises.
    Fixed(u32),
    /// What the model can do, as on wires where no limit means none.
    OfModel,
}

impl<'a> Request<'a> {
    pub(crate) fn new(names: &'static Names) -> Self {
        Self {
            model: "".into(),
            system: Vec::new(),
            turns: Vec::new(),
            tools: Vec::new(),
            web_search: None,
            tool_choice: None,
            parallel_tools: None,
            max_tokens: None,
            temperature: None,
            top_p: None,
            top_k: None,
            stop: Vec::new(),
            thinking: None,
            format: None,
            verbosity: None,
            standard_tier: false,
            user: None,
            stream: false,
            names,
        }
    }

    /// Adds to what the system says: at the beginning, or, behind the first turn, as one of its own.
    pub(crate) fn system(&mut self, texts: Vec<Text<'a>>) {
        let texts = texts.into_iter().filter(|text| !text.text.is_empty());
        if self.turns.is_empty() {
            self.system.extend(texts);
        } else {
            let parts = texts.map(Part::from).collect();
            self.turns.push(Turn { role: Role::System, parts });
        }
    }

    /// Adds to the last turn when it is of the same role.
    pub(crate) fn push(&mut self, role: Role, parts: Vec<Part<'a>>) {
        match self.turns.last_mut() {
            Some(last) if last.role == role => last.parts.extend(parts),
            _ => self.turns.push(Turn { role, parts }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// In the middle of a conversation.
    System,
    User,
    Assistant,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Turn<'a> {
    pub(crate) role: Role,
    pub(crate) parts: Vec<Part<'a>>,
}

/// How long what stands until here is to be kept in the provider's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    FiveMinutes,
    OneHour,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Text<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) cache: Option<Cache>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Part<'a> {
    pub(crate) kind: PartKind<'a>,
    pub(crate) cache: Option<Cache>,
}

impl<'a> From<Text<'a>> for Part<'a> {
    fn from(text: Text<'a>) -> Self {
        Self { kind: PartKind::Text(text.text), cache: text.cache }
    }
}

impl<'a> From<PartKind<'a>> for Part<'a> {
    fn from(kind: PartKind<'a>) -> Self {
        Self { kind, cache: None }
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum PartKind<'a> {
    Text(Cow<'a, str>),
    Image(Media<'a>),
    Document(Media<'a>),
    /// Of an assistant.
    Thinking(Thought<'a>),
    /// Of an assistant.
    Call(Call<'a>),
    /// Of a user.
    Result(ToolResult<'a>),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Media<'a> {
    /// The path in the client's request.
    pub(crate) at: String,
    pub(crate) source: Source<'a>,
    /// Of a document.
    pub(crate) title: Option<Cow<'a, str>>,
    /// Of a document: what else there is to say of it.
    pub(crate) context: Option<Cow<'a, str>>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Source<'a> {
    Base64 {
        media_type: Cow<'a, str>,
        data: Cow<'a, str>,
    },
    Url(Cow<'a, str>),
    /// Of a document.
    Text(Cow<'a, str>),
}

/// A piece of a model's thinking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thought<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) seal: Option<Seal<'a>>,
}

/// By what a provider knows a piece of thinking as its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seal<'a> {
    /// Anthropic's, of the text.
    Signature(Cow<'a, str>),
    /// Anthropic's, instead of the text.
    Redacted(Cow<'a, str>),
    /// OpenAI's: an item of reasoning.
    Encrypted { id: Cow<'a, str>, content: Cow<'a, str> },
    /// Google's: of the call with this id, or of the text before it.
    Google { call: Option<Cow<'a, str>>, signature: Cow<'a, str> },
}

#[derive(Debug, PartialEq)]
pub(crate) struct Call<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) name: Cow<'a, str>,
    /// JSON, or what the model wrote instead.
    pub(crate) arguments: Cow<'a, str>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct ToolResult<'a> {
    pub(crate) id: Cow<'a, str>,
    /// Text, images, documents.
    pub(crate) parts: Vec<Part<'a>>,
    pub(crate) is_error: bool,
}

#[derive(Debug)]
pub(crate) struct Tool<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) description: Option<Cow<'a, str>>,
    /// None: it takes no arguments.
    pub(crate) schema: Option<&'a RawValue>,
    pub(crate) strict: Option<bool>,
    pub(crate) cache: Option<Cache>,
}

/// A search of the web that the provider itself makes.
#[derive(Debug, Default)]
pub(crate) struct WebSearch<'a> {
    /// The path in the client's request.
    pub(crate) at: String,
    pub(crate) allowed_domains: Vec<Cow<'a, str>>,
    pub(crate) blocked_domains: Vec<Cow<'a, str>>,
    pub(crate) max_uses: Option<u32>,
    /// Where the user is, in the form that Anthropic and OpenAI share.
    pub(crate) location: Option<&'a RawValue>,
}

impl WebSearch<'_> {
    /// Just a search.
    pub(crate) fn is_plain(&self) -> bool {
        self.allowed_domains.is_empty()
            && self.blocked_domains.is_empty()
            && self.max_uses.is_none()
            && self.location.is_none()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToolChoice<'a> {
    Auto,
    None,
    Required,
    Tool(Cow<'a, str>),
}

/// A tool's schema with the two members without which it is refused, by OpenAI the one and by
/// Anthropic the other, and which a client leaves out whose tool takes no arguments.
pub(crate) fn complete_schema(schema: &RawValue) -> Cow<'_, RawValue> {
    #[derive(Deserialize)]
    struct Top {
        #[serde(rename = "type")]
        kind: Option<IgnoredAny>,
        properties: Option<IgnoredAny>,
    }
    let Some(rest) = schema.get().strip_prefix('{') else { return Cow::Borrowed(schema) };
    let added = match serde_json::from_str(schema.get()) {
        Ok(Top { kind: None, properties: None }) => r#""type":"object","properties":{}"#,
        Ok(Top { kind: None, properties: Some(_) }) => r#""type":"object""#,
        Ok(Top { kind: Some(_), properties: None }) => r#""properties":{}"#,
        Ok(Top { kind: Some(_), properties: Some(_) }) | Err(_) => return Cow::Borrowed(schema),
    };
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    let whole = RawValue::from_string(format!("{{{added}{comma}{rest}"));
    whole.map_or(Cow::Borrowed(schema), Cow::Owned)
}

/// Is it worth telling a vendor this `temperature` or `top_p`? 1 is what both have by default, and
/// clients set it out of habit; but some models refuse either, and some the two together.
pub(crate) fn is_telling(value: f64) -> bool {
    (value - 1.0).abs() > f64::EPSILON
}

/// How much the model is to think before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thinking {
    Disabled,
    Budget(u32),
    /// As it sees fit.
    Adaptive(Option<Effort>),
    /// In whatever way the model knows.
    Effort(Effort),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

impl Effort {
    pub(crate) fn read(word: &str) -> Option<Self> {
        Some(match word {
            "minimal" => Self::Minimal,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "xhigh" => Self::Xhigh,
            "max" => Self::Max,
            _ => return None,
        })
    }
}

/// What the text of a reply must be.
#[derive(Debug)]
pub(crate) enum Format<'a> {
    /// Some JSON object.
    Json,
    Schema {
        name: Option<Cow<'a, str>>,
        description: Option<Cow<'a, str>>,
        schema: &'a RawValue,
        strict: Option<bool>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verbosity {
    Low,
    Medium,
    High,
}
