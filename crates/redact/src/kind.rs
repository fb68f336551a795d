//! What was masked: the kinds, the mark that stands in a secret's place, and how often each was met.

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)+) => {
        /// What kind of secret was masked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $name,)+ }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As it stands in the mark, and as the label of a metric.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// What stands in place of the secret.
            pub const fn mark(self) -> &'static str {
                match self { $(Self::$name => concat!("[redacted:", $label, "]"),)+ }
            }
        }
    };
}

kinds! {
    /// A configured value, or an encoding of one.
    Known => "known",
    LoomToken => "loom-token",
    GithubToken => "github-token",
    AnthropicKey => "anthropic-key",
    OpenaiKey => "openai-key",
    AwsKey => "aws-key",
    SlackToken => "slack-token",
    GoogleKey => "google-key",
    GitlabToken => "gitlab-token",
    NpmToken => "npm-token",
    StripeKey => "stripe-key",
    HuggingfaceToken => "huggingface-token",
    Jwt => "jwt",
    PrivateKey => "private-key",
    /// What follows `Authorization: <scheme>`, or `Bearer`.
    Authorization => "authorization",
    UrlPassword => "url-password",
    /// The value of a parameter that is called as secrets are, in a URL or in `name=value`.
    Parameter => "parameter",
    /// The value of a JSON field that is called as secrets are.
    Field => "field",
}

/// How many secrets of each kind were masked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts([u32; Kind::ALL.len()]);

impl Counts {
    pub fn get(&self, kind: Kind) -> u32 {
        self.0.get(kind as usize).copied().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|count| *count == 0)
    }

    /// The kinds that were met, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u32)> + '_ {
        Kind::ALL.iter().map(|kind| (*kind, self.get(*kind))).filter(|(_, count)| *count > 0)
    }

    /// Adds those of another text.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    /// Tells the metrics of this process.
    pub(crate) fn measure(&self) {
        for (kind, count) in self.iter() {
            metrics::counter!("loom_redactions_total", "kind" => kind.label())
                .increment(u64::from(count));
        }
    }

    pub(crate) fn add(&mut self, kind: Kind) {
        if let Some(count) = self.0.get_mut(kind as usize) {
            *count = count.saturating_add(1);
        }
    }
}

const OPEN: &[u8] = b"[redacted:";
/// The longest mark, and some air.
pub(crate) const LONGEST_MARK: usize = 40;

/// Where the mark that begins at `at` ends.
pub(crate) fn mark_at(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix(OPEN)?;
    let label = rest.iter().take(LONGEST_MARK).position(|byte| *byte == b']')?;
    rest.get(..label)?
        .iter()
        .all(|byte| byte.is_ascii_lowercase() || *byte == b'-')
        .then_some(at + OPEN.len() + label + 1)
}

/// May a mark begin at `at`, of which the end has not come yet?
pub(crate) fn may_become_mark(text: &[u8], at: usize) -> bool {
    let rest = text.get(at..).unwrap_or_default();
    rest.len() < LONGEST_MARK
        && (OPEN.starts_with(rest) || rest.starts_with(OPEN))
        && mark_at(text, at).is_none()
}

/// Does a mark end right before `at`?
pub(crate) fn mark_before(text: &[u8], at: usize) -> bool {
    let from = at.saturating_sub(LONGEST_MARK);
    let before = text.get(from..at).unwrap_or_default();
    before.last() == Some(&b']')
        && before
            .iter()
            .rposition(|byte| *byte == b'[')
            .is_some_and(|open| mark_at(text, from + open) == Some(at))
}
