//! Reading and describing the members of a request that have more than one form.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
    },
};

use super::model::{Content, ToolChoice};

impl<'de> Deserialize<'de> for Content {
    /// By hand, so that an error has the path of the part that it is in.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOrParts;

        impl<'de> Visitor<'de> for StringOrParts {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of parts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = list.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }

        deserializer.deserialize_any(StringOrParts)
    }
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            tool_name: String,
        }

        struct WordOrName;

        impl<'de> Visitor<'de> for WordOrName {
            type Value = ToolChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`auto`, `none`, `required` or {\"tool_name\": …}")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<ToolChoice, E> {
                match word {
                    "auto" => Ok(ToolChoice::Auto),
                    "none" => Ok(ToolChoice::None),
                    "required" => Ok(ToolChoice::Required),
                    _ => Err(E::unknown_variant(word, &["auto", "none", "required"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
                Named::deserialize(MapAccessDeserializer::new(map))
                    .map(|named| ToolChoice::Tool(named.tool_name))
            }
        }

        deserializer.deserialize_any(WordOrName)
    }
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Required => serializer.serialize_str("required"),
            Self::Tool(name) => serializer.collect_map([("tool_name", name)]),
        }
    }
}

impl PartialSchema for ToolChoice {
    fn schema() -> RefOr<Schema> {
        let word = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["auto", "none", "required"]));
        let named = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("tool_name", ObjectBuilder::new().schema_type(Type::String))
            .required("tool_name");
        OneOfBuilder::new().item(word).item(named).into()
    }
}

impl ToSchema for ToolChoice {
    fn name() -> std::borrow::Cow<'static, str> {
        "LlmToolChoice".into()
    }
}
