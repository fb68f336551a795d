//! Positions in bundled and minified scripts into those of the sources.

use std::{io::Read, path::Path, sync::Arc};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use sourcemap::{DecodedMap, SourceMap, SourceMapHermes, SourceView, Token};

use crate::{
    guard::Malformed,
    model::{Context, Found, Frame, Language, Outcome, Stack, Status},
};

/// Scripts and maps may be this large.
pub(crate) const MAX_FILE: u64 = 256 << 20;
/// Places of a map.
const MOST_PLACES: usize = 10_000_000;
/// Maps within scripts.
const MAX_INLINE: usize = 64 << 20;
/// Bundlers differ about the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A source map, read.
pub(crate) struct ScriptMap {
    map: Decoded,
    /// Its file.
    pub(crate) file: String,
    /// Bytes of the file, as a measure of what it takes.
    pub(crate) bytes: usize,
}

enum Decoded {
    Plain(Box<SourceMap>),
    /// Of React Native: it knows the scopes.
    Hermes(Box<SourceMapHermes>),
}

impl ScriptMap {
    pub(crate) fn parse(content: &[u8], file: String) -> Result<Self, Malformed> {
        // Each is some forty bytes of memory, and may be two of the file.
        if memchr::memchr_iter(b',', content).take(MOST_PLACES + 1).count() > MOST_PLACES {
            return Err(Malformed::new(format_args!("the map has more than {MOST_PLACES} places")));
        }
        let decoded = sourcemap::decode_slice(content).map_err(|e| Malformed::from_error(&e))?;
        Self::of(decoded, file, content.len())
    }

    fn of(decoded: DecodedMap, file: String, bytes: usize) -> Result<Self, Malformed> {
        let map = match decoded {
            DecodedMap::Regular(map) => Decoded::Plain(Box::new(map)),
            DecodedMap::Index(index) => {
                Decoded::Plain(Box::new(index.flatten().map_err(|e| Malformed::from_error(&e))?))
            }
            DecodedMap::Hermes(map) => Decoded::Hermes(Box::new(map)),
        };
        Ok(Self { map, file, bytes })
    }

    /// A map that a script holds within itself.
    pub(crate) fn inline(url: &str, file: String) -> Result<Self, Malformed> {
        if url.len() > MAX_INLINE {
            let limit = MAX_INLINE >> 20;
            return Err(Malformed::new(format_args!("the inline map is larger than {limit} MiB")));
        }
        let data = url.strip_prefix("data:").and_then(|rest| {
            let (kind, data) = rest.split_once(',')?;
            kind.to_ascii_lowercase().ends_with(";base64").then_some(data)
        });
        let data =
            data.ok_or_else(|| Malformed::new("the inline map is no data: URL of base64"))?;
        // Held to the same bounds as one that is a file.
        let content = BASE64.decode(data.trim()).map_err(|e| Malformed::from_error(&e))?;
        Self::parse(&content, file)
    }

    fn plain(&self) -> &SourceMap {
        match &self.map {
            Decoded::Plain(map) => map,
            Decoded::Hermes(map) => map,
        }
    }

    /// The token that covers a position, both counted from one; without a column, the first of the line.
    fn token(&self, line: u32, column: Option<u32>) -> Option<Token<'_>> {
        let line = line.checked_sub(1)?;
        let found = match column.filter(|column| *column > 0) {
            Some(column) => self.plain().lookup_token(line, column - 1),
            None => {
                // The greatest token that is not greater than the end of the line before, and then the next.
                let map = self.plain();
                map.lookup_token(line, 0)
                    .filter(|token| token.get_dst_line() == line)
                    .or_else(|| map.tokens().find(|token| token.get_dst_line() == line))
            }
        };
        // Lines that the map does not speak of fall to the end of the one before.
        found.filter(|token| token.get_dst_line() == line && token.has_source())
    }
}

/// Reads a file of bounded size whole.
pub(crate) fn read(path: &Path) -> std::io::Result<Result<Vec<u8>, Malformed>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        let limit = MAX_FILE >> 20;
        return Ok(Err(Malformed::new(format_args!("the file is larger than {limit} MiB"))));
    }
    Ok(Ok(content))
}

/// Where a script says that its map is.
pub(crate) fn reference(script: &[u8]) -> Option<String> {
    let reference = sourcemap::locate_sourcemap_reference_slice(script).ok().flatten()?;
    Some(reference.get_url().to_owned()).filter(|url| !url.is_empty())
}

/// What there is for a script.
#[derive(Clone)]
pub(crate) enum Script {
    There {
        map: Arc<ScriptMap>,
        /// The minified script, in which names of functions are found.
        minified: Option<Arc<SourceView>>,
        /// Of the map, which names of sources are relative to.
        url: Arc<str>,
    },
    None(Option<Status>),
}

/// Where the script of a frame is, when the frame is one to look up.
pub(crate) fn url_of(frame: &Frame) -> Option<&str> {
    const INTERNAL: [&str; 9] = [
        "node:",
        "internal/",
        "native",
        "<",
        "[",
        "webpack-internal:",
        "chrome-extension:",
        "moz-extension:",
        "evalmachine",
    ];
    if frame.language != Language::JavaScript || frame.lineno.is_none_or(|line| line == 0) {
        return None;
    }
    let url = frame.abs_path.as_deref().or(frame.filename.as_deref())?;
    (!url.is_empty() && !INTERNAL.iter().any(|begin| url.starts_with(begin))).then_some(url)
}

/// Looks up the frame at `place` of a stack; `scripts` gives what there is for a frame.
pub(crate) fn resolve<'a>(
    stack: &Stack,
    place: usize,
    scripts: &impl Fn(&Frame) -> Option<&'a Script>,
) -> Outcome {
    let Some(frame) = stack.frames.get(place) else { return Outcome::default() };
    let (map, minified, url) = match scripts(frame) {
        None => return Outcome::default(),
        Some(Script::None(status)) => {
            return Outcome { frames: Vec::new(), status: status.clone() };
        }
        Some(Script::There { map, minified, url }) => (map, minified, url),
    };
    let file = map.file.clone();
    let Some(token) = frame.lineno.and_then(|line| map.token(line, frame.colno)) else {
        return Outcome::only(Status::MissingSymbol { file });
    };
    let caller = place.checked_sub(1).and_then(|place| stack.frames.get(place));
    let function = scope(map, token)
        .or_else(|| declared(map, minified.as_deref(), frame))
        .or_else(|| called(caller?, scripts))
        .or_else(|| frame.function.clone());
    let source = token.get_source().unwrap_or_default();
    let line = token.get_src_line().saturating_add(1);
    let plain = map.plain();
    let context =
        plain.get_source_contents(token.get_src_id()).and_then(|source| Context::of(source, line));
    let found = Found {
        raw_function: frame.function.clone().filter(|raw| function.as_ref() != Some(raw)),
        function,
        module: None,
        filename: Some(short_name(source)),
        abs_path: Some(join(url, source)),
        lineno: Some(line),
        colno: Some(token.get_src_col().saturating_add(1)),
        foreign: source.contains("node_modules/")
            || source.contains("(webpack)")
            || source.contains("webpack/")
            || plain.ignore_list().any(|id| *id == token.get_src_id()),
        context,
        ..Found::default()
    };
    Outcome { frames: vec![found], status: Some(Status::Symbolicated { file }) }
}

/// The name of the function around a token, when the map knows scopes.
fn scope(map: &ScriptMap, token: Token<'_>) -> Option<String> {
    match &map.map {
        Decoded::Hermes(hermes) => hermes.get_scope_for_token(token).map(str::to_owned),
        Decoded::Plain(_) => None,
    }
}

/// The name under which the function was declared: by `function x(` before the position in the script.
fn declared(map: &ScriptMap, minified: Option<&SourceView>, frame: &Frame) -> Option<String> {
    let name = bare(frame.function.as_deref()?)?;
    let (line, column) = (frame.lineno?.checked_sub(1)?, frame.colno?.checked_sub(1)?);
    let found = map.plain().get_original_function_name(line, column, name, minified?)?;
    Some(found.to_owned())
}

/// The name by which the caller called it.
fn called<'a>(caller: &Frame, scripts: &impl Fn(&Frame) -> Option<&'a Script>) -> Option<String> {
    let Some(Script::There { map, .. }) = scripts(caller) else { return None };
    let (line, column) = (caller.lineno?, caller.colno?);
    let token = map.token(line, Some(column))?;
    // Only the name that is called, not what stands before it.
    (token.get_dst_col() == column.checked_sub(1)?)
        .then(|| token.get_name())
        .flatten()
        .map(str::to_owned)
}

/// The last name of `async Object.x [as y]`; none when it is anonymous.
fn bare(function: &str) -> Option<&str> {
    let name = function.split(" [as ").next()?;
    let name = name.rsplit([' ', '.']).next()?;
    let good = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == '#';
    (!name.is_empty() && name.chars().all(good)).then_some(name)
}

/// A source without what the bundler or the host put before it.
fn short_name(source: &str) -> String {
    let path = match source.split_once("://") {
        // webpack://name/./src/a.ts
        Some((scheme, rest)) if scheme.ends_with("webpack") => {
            rest.split_once('/').map_or(rest, |(_, path)| path)
        }
        Some((_, rest)) => rest.split_once('/').map_or(rest, |(_, path)| path),
        None => source,
    };
    let mut path = path;
    while let Some(rest) = path.strip_prefix("./").or_else(|| path.strip_prefix("../")) {
        path = rest;
    }
    path.to_owned()
}

/// A URL or path seen from another.
pub(crate) fn join(base: &str, target: &str) -> String {
    if target.contains("://") || target.starts_with("~/") {
        return target.to_owned();
    }
    let base = base.split(['?', '#']).next().unwrap_or(base);
    // What `..` does not leave: scheme and host, or `~`.
    let root = match base.find("://") {
        Some(at) => {
            let host = at + 3;
            base.get(host..).and_then(|rest| rest.find('/')).map_or(base.len(), |end| host + end)
        }
        None => usize::from(base.starts_with("~/")),
    };
    let (root, path) = base.split_at_checked(root).unwrap_or((base, ""));
    let absolute = target.starts_with('/');
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = Vec::new();
    let from = if absolute { "" } else { folder };
    for part in from.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let rooted = absolute || !root.is_empty() || path.starts_with('/');
    format!("{root}{}{}", if rooted { "/" } else { "" }, parts.join("/"))
}
