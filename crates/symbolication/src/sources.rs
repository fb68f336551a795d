//! Sources of a native module: of its bundle, or of the debug file itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use symbolic_common::ByteView;

use crate::{bundle::Bundle, guard::Malformed, native::pick};

/// Sources that were unpacked, kept for the next frame of the same file.
const KEPT: usize = 32;
/// A source beyond this gives no context.
const MAX_SOURCE: usize = 8 << 20;

pub(crate) struct Sources(Mutex<Open>);

struct Open {
    origin: Origin,
    unpacked: Vec<(String, Option<Arc<str>>)>,
}

enum Origin {
    Bundle {
        bundle: Box<Bundle<ByteView<'static>>>,
        /// Name in the ZIP by the path that the compiler saw.
        names: HashMap<String, String>,
    },
    Debug(ByteView<'static>),
}

impl Sources {
    pub(crate) fn parse(data: ByteView<'static>) -> Result<Self, Malformed> {
        let origin = if Bundle::test(&data) {
            let bundle = Box::new(Bundle::parse(data)?);
            let name = |entry: &crate::bundle::Entry| {
                Some((normalize(entry.path.as_deref()?), entry.zip_path.clone()))
            };
            Origin::Bundle { names: bundle.entries.iter().filter_map(name).collect(), bundle }
        } else {
            Origin::Debug(data)
        };
        Ok(Self(Mutex::new(Open { origin, unpacked: Vec::new() })))
    }

    pub(crate) fn by_path(&self, path: &str) -> Option<Arc<str>> {
        let path = normalize(path);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = open.unpacked.iter().find(|(known, _)| *known == path) {
            return text.clone();
        }
        let text = open
            .origin
            .read(&path)
            .filter(|content| content.len() <= MAX_SOURCE)
            .and_then(|content| String::from_utf8(content).ok())
            .map(Arc::from);
        if open.unpacked.len() >= KEPT {
            open.unpacked.remove(0);
        }
        open.unpacked.push((path, text.clone()));
        text
    }
}

impl Origin {
    fn read(&mut self, path: &str) -> Option<Vec<u8>> {
        match self {
            Self::Bundle { bundle, names } => bundle.read(names.get(path)?).ok(),
            Self::Debug(data) => {
                let object = pick(data, None).ok()?;
                let session = object.debug_session().ok()?;
                let source = session.source_by_path(path).ok()??;
                Some(source.contents()?.as_bytes().to_vec())
            }
        }
    }
}

/// Windows has two ways to write a path.
fn normalize(path: &str) -> String {
    path.replace('\\', "/")
}
