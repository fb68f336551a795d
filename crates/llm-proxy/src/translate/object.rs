//! Reading a JSON object member by member, so that nothing in it can be overlooked: what nobody took
//! is told by its path.

use std::{borrow::Cow, fmt};

use loom_core::{Error, Result, error::FieldError};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// No more than this many faults are told.
const MAX_FAULTS: usize = 50;
const UNSAID: &str = "cannot be told to the provider of this model; leave it out, or ask a model on whose own wire it exists";

/// What is wrong with a request, field by field.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<FieldError>);

impl Faults {
    pub(crate) fn add(&mut self, path: impl fmt::Display, message: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(FieldError { path: path.to_string(), message: message.into() });
        }
    }

    /// Something that the other wire has no word for.
    pub(crate) fn unsaid(&mut self, path: impl fmt::Display) {
        self.add(path, UNSAID);
    }

    pub(crate) fn unless(&mut self, holds: bool, path: impl fmt::Display, message: &str) {
        if !holds {
            self.add(path, message);
        }
    }

    /// # Errors
    /// 422 when there is any.
    pub(crate) fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::invalid_fields(self.0)) }
    }
}

/// Where in a request something stands; written out only when there is something to say of it.
#[derive(Clone, Copy)]
pub(crate) struct Path<'p> {
    parent: Option<&'p Self>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Member(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub(crate) const ROOT: Self = Self { parent: None, step: Step::Member("") };

    pub(crate) fn member(&'p self, name: &'p str) -> Self {
        Self { parent: Some(self), step: Step::Member(name) }
    }

    pub(crate) fn index(&'p self, at: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(at) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else { return Ok(()) };
        parent.fmt(f)?;
        match self.step {
            Step::Member(name) if parent.parent.is_none() => f.write_str(name),
            Step::Member(name) => write!(f, ".{name}"),
            Step::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Str<'a>(#[serde(borrow)] Cow<'a, str>);

struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((Str(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

/// An object that is being read.
pub(crate) struct Object<'a, 'p> {
    pub(crate) path: Path<'p>,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a, 'p> Object<'a, 'p> {
    pub(crate) fn read(raw: &'a RawValue, path: Path<'p>, faults: &mut Faults) -> Option<Self> {
        match serde_json::from_str::<Members<'a>>(raw.get()) {
            Ok(Members(members)) => Some(Self { path, members }),
            Err(_) => {
                faults.add(path, "must be an object");
                None
            }
        }
    }

    /// The member, which is then off the list. Null is as good as absent; of two the last counts.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let mut found = None;
        self.members.retain(|(of, value)| {
            if of == name {
                found = Some(*value);
            }
            of != name
        });
        found.filter(|value| value.get() != "null")
    }

    fn typed<T: Deserialize<'a>>(
        &mut self,
        name: &str,
        what: &str,
        faults: &mut Faults,
    ) -> Option<T> {
        let raw = self.take(name)?;
        let value = serde_json::from_str(raw.get());
        if value.is_err() {
            faults.add(self.path.member(name), format!("must be {what}"));
        }
        value.ok()
    }

    pub(crate) fn text(&mut self, name: &str, faults: &mut Faults) -> Option<Cow<'a, str>> {
        self.typed::<Str<'a>>(name, "a string", faults).map(|Str(text)| text)
    }

    /// A string that has to be there.
    pub(crate) fn some_text(&mut self, name: &str, faults: &mut Faults) -> Cow<'a, str> {
        let before = faults.0.len();
        let text = self.text(name, faults);
        if text.is_none() && faults.0.len() == before {
            faults.add(self.path.member(name), "is missing");
        }
        text.unwrap_or_default()
    }

    pub(crate) fn texts(&mut self, name: &str, faults: &mut Faults) -> Vec<Cow<'a, str>> {
        let texts = self.typed::<Vec<Str<'a>>>(name, "a list of strings", faults);
        texts.unwrap_or_default().into_iter().map(|Str(text)| text).collect()
    }

    pub(crate) fn number<T: DeserializeOwned>(
        &mut self,
        name: &str,
        faults: &mut Faults,
    ) -> Option<T> {
        self.typed(name, "a number within bounds", faults)
    }

    pub(crate) fn flag(&mut self, name: &str, faults: &mut Faults) -> Option<bool> {
        self.typed(name, "true or false", faults)
    }

    pub(crate) fn list(&mut self, name: &str, faults: &mut Faults) -> Vec<&'a RawValue> {
        self.typed(name, "a list", faults).unwrap_or_default()
    }

    /// What `type` says, which stays on the list.
    pub(crate) fn kind(&self) -> Option<Cow<'a, str>> {
        let (_, raw) = self.members.iter().find(|(name, _)| name == "type")?;
        as_text(raw)
    }

    /// Members that change nothing in the reply, whatever they say.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        self.members.retain(|(name, _)| !names.contains(&&**name));
    }

    /// A member that may only say what is so anyway.
    pub(crate) fn only(&mut self, name: &str, allowed: &[&str], faults: &mut Faults) {
        let Some(raw) = self.take(name) else { return };
        if !allowed.contains(&raw.get()) {
            let allowed = allowed.join(" or ");
            faults.add(
                self.path.member(name),
                format!("can only be {allowed} for the provider of this model"),
            );
        }
    }

    /// What nobody took cannot be told.
    pub(crate) fn finish(self, faults: &mut Faults) {
        for (name, value) in &self.members {
            if value.get() != "null" {
                faults.unsaid(self.path.member(loom_core::text::cut(name, 100)));
            }
        }
    }
}

/// A value that is a string.
pub(crate) fn as_text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Str<'_>>(raw.get()).ok().map(|Str(text)| text)
}

/// A value that is a list.
pub(crate) fn as_list(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

pub(crate) fn is_object(json: &RawValue) -> bool {
    json.get().starts_with('{')
}
