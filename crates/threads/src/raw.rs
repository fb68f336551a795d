//! JSON of a client's own making, kept and given back as it came: order of members, digits and all.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Any JSON value, as its text.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Raw(Box<RawValue>);

/// What kind of JSON value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Other,
}

impl Raw {
    /// `null`
    pub(crate) fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// `{}`
    pub(crate) fn empty_object() -> Self {
        Self(RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    pub(crate) fn get(&self) -> &str {
        self.0.get()
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.get().as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            _ => Kind::Other,
        }
    }

    /// Raw text is taken over unread; this looks for what PostgreSQL or a reader would choke on:
    /// half a surrogate pair, nesting without end, a number beyond any float.
    pub(crate) fn check(&self) -> Result<(), String> {
        match serde_json::from_str::<Sound>(self.get()) {
            Ok(Sound) => Ok(()),
            Err(error) => {
                let text = error.to_string();
                Err(if text.contains("surrogate") || text.contains("end of hex escape") {
                    "holds half of a UTF-16 surrogate pair, which cannot be stored".to_owned()
                } else if text.contains("recursion") {
                    "is nested more than 127 levels deep".to_owned()
                } else {
                    text.split(" at line ").next().unwrap_or(&text).to_owned()
                })
            }
        }
    }
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl TryFrom<String> for Raw {
    type Error = serde_json::Error;

    fn try_from(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }
}

/// Reads a whole JSON value, decoding its strings, and keeps nothing.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while members.next_key::<Self>()?.is_some() {
            members.next_value::<Self>()?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Raw {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_text_stays_as_it_came() {
        for text in [r#"{"b":1.0,"a":1e2,"a":[ 12345678901234567890123 ]}"#, r#""x\u00e9\/""#, "7"]
        {
            assert_eq!(serde_json::to_string(&raw(text)).unwrap(), text);
            assert_eq!(raw(text).check(), Ok(()));
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_found_in_values_and_in_names() {
        for text in
            [r#""\ud800""#, r#"["\udc00"]"#, r#"{"\ud800x":1}"#, r#"{"a":{"b":["\ud800\n"]}}"#]
        {
            assert!(raw(text).check().unwrap_err().contains("surrogate"), "{text}");
        }
        assert_eq!(raw(r#""\ud83d\ude00""#).check(), Ok(()));
    }

    #[test]
    fn bottomless_nesting_is_found() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(raw(&deep).check().unwrap_err().contains("nested"));
    }
}
