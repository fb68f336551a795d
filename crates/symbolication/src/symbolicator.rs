//! From a request to its answer: which files are wanted, what is made of them, and the frames looked up.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
};

use loom_core::id::ProjectId;
use moka::future::Cache;
use sourcemap::SourceView;

use crate::{
    Config, File, Files, Wanted,
    derived::{Derived, Key, Kind, View},
    guard::{Malformed, guarded},
    lookup::Lookup,
    mapping::{self, Mapping},
    model::{Frame, Language, Module, ModuleKind, Outcome, Request, Response, Status},
    native::{self, Map, Symbols},
    script::{self, Script, ScriptMap},
    sources::Sources,
    unwind::{self, Rules},
};

/// Frames of an event that are looked up.
const MAX_FRAMES: usize = 10_000;
/// Different scripts of an event.
const MAX_SCRIPTS: usize = 200;
/// Source maps and scripts that are kept in memory, by the bytes of their files.
const MAX_SCRIPT_BYTES: u64 = 96 << 20;
/// Bundles of native sources that are kept open.
const MAX_SOURCES: u64 = 64;
const KEPT: std::time::Duration = std::time::Duration::from_hours(1);

/// Symbolicates, with caches of derived files on disk; cheap to clone.
#[derive(Clone)]
pub struct Symbolicator(pub(crate) Arc<Inner>);

/// A file by its digest, and the object in it by its debug id.
type RulesKey = ([u8; 32], Option<String>);

pub(crate) struct Inner {
    lookup: Lookup,
    pub(crate) derived: Derived,
    /// How stacks are unwound, read into memory; of a fat file each object has its own.
    rules: Cache<RulesKey, Option<Arc<Rules>>>,
    /// Minidumps that are walked at the same time.
    pub(crate) walks: tokio::sync::Semaphore,
    scripts: Cache<[u8; 32], Result<Text, Malformed>>,
    sources: Cache<[u8; 32], Option<Arc<Sources>>>,
}

/// A script or a map.
#[derive(Clone)]
enum Text {
    Map(Arc<ScriptMap>),
    Script { view: Arc<SourceView>, reference: Option<Arc<str>> },
}

impl Text {
    fn weight(&self) -> u32 {
        let bytes = match self {
            Self::Map(map) => map.bytes,
            Self::Script { view, .. } => view.source().len(),
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// What is noted while a request is worked on.
#[derive(Default)]
struct Notes {
    missing: Vec<Wanted>,
}

impl Notes {
    fn missing(&mut self, wanted: Wanted) {
        if self.missing.len() < 500 && !self.missing.contains(&wanted) {
            self.missing.push(wanted);
        }
    }
}

impl Symbolicator {
    pub fn new(files: Arc<dyn Files>, config: Config) -> Self {
        let scripts = Cache::builder()
            .max_capacity(MAX_SCRIPT_BYTES)
            .weigher(|_: &[u8; 32], text: &Result<Text, Malformed>| {
                text.as_ref().map_or(256, |text| text.weight().max(256))
            })
            .time_to_live(KEPT)
            .build();
        let rules = Cache::builder()
            .max_capacity(unwind::MAX_KEPT)
            .weigher(|_: &RulesKey, rules: &Option<Arc<Rules>>| {
                rules.as_ref().map_or(256, |rules| rules.weight)
            })
            .time_to_live(KEPT)
            .build();
        let sources = Cache::builder().max_capacity(MAX_SOURCES).time_to_live(KEPT).build();
        Self(Arc::new(Inner {
            lookup: Lookup::new(files),
            derived: Derived::new(config.cache_dir, config.cache_bytes, config.parallel),
            rules,
            walks: tokio::sync::Semaphore::new(crate::minidump::WALKS),
            scripts,
            sources,
        }))
    }

    /// Forgets what files a project has, and has not: something was uploaded or deleted.
    pub fn uploaded(&self, project: ProjectId) {
        self.0.lookup.forget(project);
    }

    /// Forgets it of all projects: what was said of uploads may have been missed.
    pub fn uploads_missed(&self) {
        self.0.lookup.forget_all();
    }

    /// Looks up all frames of an event.
    pub async fn symbolicate(&self, request: Request) -> Response {
        let mut notes = Notes::default();
        let map = Map::new(&request.modules);
        let symbols = self.0.native(&request, &map, &mut notes).await;
        let mappings = self.0.mappings(&request, &mut notes).await;
        let scripts = self.0.scripts(&request, &mut notes).await;
        // A few microseconds a frame, but a source may be unpacked, or a minified line scanned.
        let looked_up = tokio::task::spawn_blocking(move || {
            guarded(|| Ok(resolve(&request, &map, &symbols, &mappings, &scripts)))
        });
        let mut response = match looked_up.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::warn!(reason = %error, "an event was not symbolicated");
                Response::default()
            }
            Err(_) => Response::default(),
        };
        response.missing = notes.missing;
        response
    }
}

fn resolve(
    request: &Request,
    map: &Map,
    symbols: &HashMap<usize, Symbols>,
    mappings: &[Mapping],
    scripts: &HashMap<String, Script>,
) -> Response {
    let script = |frame: &Frame| scripts.get(script::url_of(frame)?);
    let mut left = MAX_FRAMES;
    let stacks = request.stacks.iter().map(|stack| {
        let outcomes = stack.frames.iter().enumerate().map(|(place, frame)| {
            if left == 0 {
                return Outcome::default();
            }
            left -= 1;
            match frame.language {
                Language::Native | Language::DotNet => {
                    native::resolve(&request.modules, map, symbols, stack, place)
                }
                Language::JavaScript => script::resolve(stack, place, &script),
                Language::Java => mapping::resolve(mappings, frame),
                Language::Other => Outcome::default(),
            }
        });
        outcomes.collect()
    });
    Response {
        stacks: stacks.collect(),
        classes: request.classes.iter().map(|name| mapping::class(mappings, name)).collect(),
        missing: Vec::new(),
    }
}

/// What came of asking for a derived file.
enum Got {
    View(File, View),
    Missing,
    Failed(Status),
}

impl Inner {
    /// Symbols of the modules that frames are in.
    async fn native(
        &self,
        request: &Request,
        map: &Map,
        notes: &mut Notes,
    ) -> HashMap<usize, Symbols> {
        let used: BTreeSet<usize> = request
            .stacks
            .iter()
            .flat_map(|stack| &stack.frames)
            .take(MAX_FRAMES)
            .filter(|frame| native::wants(frame))
            .filter_map(|frame| map.find(&request.modules, frame).map(|(index, _)| index))
            .collect();
        let mut symbols = HashMap::new();
        for index in used {
            if let Some(module) = request.modules.get(index) {
                symbols.insert(index, self.module(request.project, module, notes).await);
            }
        }
        symbols
    }

    async fn module(&self, project: ProjectId, module: &Module, notes: &mut Notes) -> Symbols {
        let kind = match module.kind {
            ModuleKind::Native => Kind::SymCache,
            ModuleKind::DotNet => Kind::PortablePdb,
            ModuleKind::Script | ModuleKind::Mapping => return Symbols::None(Status::UnknownImage),
        };
        let (debug_id, code_id) = (module.debug_id.clone(), module.code_id.clone());
        if debug_id.is_none() && code_id.is_none() {
            let wanted =
                module.code_file.clone().unwrap_or_else(|| "a module without a name".to_owned());
            return Symbols::None(Status::MissingFile {
                wanted: format!("{wanted} (it has no debug id)"),
            });
        }
        let wanted = Wanted::Debug { debug_id: debug_id.clone(), code_id, symbols: true };
        match self.derived(project, &wanted, kind, debug_id.clone()).await {
            Got::Failed(status) => Symbols::None(status),
            Got::Missing => {
                let status = Status::MissingFile { wanted: module_name(module) };
                notes.missing(wanted);
                Symbols::None(status)
            }
            Got::View(file, view) => {
                let sources = match debug_id {
                    Some(debug_id) => self.sources(project, debug_id).await,
                    None => None,
                };
                let file = Arc::from(file.name);
                match module.kind {
                    ModuleKind::DotNet => Symbols::DotNet { file, view, sources },
                    _ => Symbols::Native { file, view, sources },
                }
            }
        }
    }

    /// The sources of a native module; that they are missing is no fault.
    async fn sources(&self, project: ProjectId, debug_id: String) -> Option<Arc<Sources>> {
        let wanted = Wanted::SourceBundle { debug_id };
        let file = self.lookup.find(project, &wanted).await.ok().flatten()?;
        let path = file.path.clone();
        self.sources
            .get_with(file.digest, async {
                let read = self.derived.work(move || {
                    let data = symbolic_common::ByteView::open(path)?;
                    Sources::parse(data).map(Arc::new)
                });
                read.await
                    .inspect_err(|error| tracing::warn!(%error, "sources cannot be read"))
                    .ok()
            })
            .await
    }

    /// How the stacks in a module are unwound; none when no file says it.
    pub(crate) async fn rules(
        &self,
        project: ProjectId,
        debug_id: Option<String>,
        code_id: Option<String>,
    ) -> Option<Arc<Rules>> {
        if debug_id.is_none() && code_id.is_none() {
            return None;
        }
        let wanted = Wanted::Debug { debug_id: debug_id.clone(), code_id, symbols: false };
        let made = self.derived(project, &wanted, Kind::Unwind, debug_id.clone()).await;
        let Got::View(file, view) = made else { return None };
        self.rules
            .get_with((file.digest, debug_id), async {
                let read = self.derived.work(move || Rules::read(view.as_slice()).map(Arc::new));
                read.await
                    .inspect_err(
                        |error| tracing::warn!(%error, "unwind information cannot be read"),
                    )
                    .ok()
            })
            .await
    }

    async fn mappings(&self, request: &Request, notes: &mut Notes) -> Vec<Mapping> {
        let java = |frame: &Frame| frame.language == Language::Java;
        let any = !request.classes.is_empty()
            || request.stacks.iter().flat_map(|stack| &stack.frames).any(java);
        let mut mappings = Vec::new();
        let modules = request.modules.iter().filter(|module| module.kind == ModuleKind::Mapping);
        for module in modules.take(if any { 8 } else { 0 }) {
            let Some(uuid) = module.debug_id.clone() else { continue };
            let wanted = Wanted::Mapping { uuid: uuid.clone() };
            mappings.push(
                match self.derived(request.project, &wanted, Kind::Mapping, None).await {
                    Got::View(file, view) => Mapping::There { file: Arc::from(file.name), view },
                    Got::Failed(status) => Mapping::None(status),
                    Got::Missing => {
                        notes.missing(wanted);
                        Mapping::None(Status::MissingFile { wanted: format!("mapping {uuid}") })
                    }
                },
            );
        }
        mappings
    }

    /// What is made of the file that is wanted. A copy of the file that has gone meanwhile is fetched again.
    async fn derived(
        &self,
        project: ProjectId,
        wanted: &Wanted,
        kind: Kind,
        part: Option<String>,
    ) -> Got {
        let mut again = false;
        loop {
            let found = if again {
                self.lookup.find_again(project, wanted).await
            } else {
                self.lookup.find(project, wanted).await
            };
            let file = match found {
                Ok(Some(file)) => file,
                Ok(None) => return Got::Missing,
                Err(error) => {
                    tracing::warn!(%error, "the store of files did not answer");
                    return Got::Failed(unavailable(wanted));
                }
            };
            let key = Key { kind, digest: file.digest, part: part.clone() };
            let (path, part) = (file.path.clone(), part.clone());
            let made = self.derived.get(key, move |out| match kind {
                Kind::Unwind => unwind::make(&path, part.as_deref(), out),
                Kind::SymCache => native::make_symcache(&path, part.as_deref(), out),
                Kind::PortablePdb => native::make_ppdb(&path, out),
                Kind::Mapping => mapping::make(&path, out),
            });
            match made.await {
                Ok(Ok(view)) => return Got::View(file, view),
                Ok(Err(malformed)) => {
                    return Got::Failed(Status::Malformed {
                        file: file.name,
                        reason: malformed.reason,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !again => again = true,
                Err(error) => {
                    tracing::warn!(%error, "a derived file was not made");
                    let reason = Malformed::from_error(&*error).reason;
                    return Got::Failed(Status::Malformed { file: file.name, reason });
                }
            }
        }
    }

    /// What there is for each script of the event, by its URL.
    async fn scripts(&self, request: &Request, notes: &mut Notes) -> HashMap<String, Script> {
        let mut urls: HashMap<String, bool> = HashMap::new();
        for frame in request.stacks.iter().flat_map(|stack| &stack.frames).take(MAX_FRAMES) {
            if let Some(url) = script::url_of(frame)
                && (urls.contains_key(url) || urls.len() < MAX_SCRIPTS)
            {
                // A source that the client has read itself needs no map.
                let readable = urls.entry(url.to_owned()).or_insert(true);
                *readable &= frame.has_context;
            }
        }
        let mut scripts = HashMap::new();
        for (url, readable) in urls {
            let mut script = self.script(request, &url, readable, notes).await;
            if let (Script::None(status), true) = (&mut script, readable)
                && matches!(status, Some(Status::MissingFile { .. } | Status::MissingSymbol { .. }))
            {
                *status = None;
            }
            scripts.insert(url, script);
        }
        scripts
    }

    async fn script(
        &self,
        request: &Request,
        url: &str,
        readable: bool,
        notes: &mut Notes,
    ) -> Script {
        let bare = url.split(['?', '#']).next().unwrap_or(url);
        let module = request.modules.iter().find(|module| {
            module.kind == ModuleKind::Script
                && module.code_file.as_deref().is_some_and(|file| file == url || file == bare)
        });
        let debug_id = module.and_then(|module| module.debug_id.clone());
        let mut asked = Vec::new();
        if let Some(debug_id) = debug_id.clone() {
            let wanted = |source_map| Wanted::ScriptById { debug_id: debug_id.clone(), source_map };
            match self.text(request.project, &wanted(true), true).await {
                Ok(Some((_, Text::Map(map)))) => {
                    let minified = self.text(request.project, &wanted(false), false).await;
                    return there(map, minified.ok().flatten(), url);
                }
                Ok(_) => asked.push(wanted(true)),
                Err(status) => return Script::None(Some(status)),
            }
        }
        if let Some(release) = request.release.clone() {
            let wanted = |url: &str, source_map| Wanted::ScriptByUrl {
                release: release.clone(),
                dist: request.dist.clone(),
                url: url.to_owned(),
                source_map,
            };
            let at = wanted(url, false);
            let script = match self.text(request.project, &at, false).await {
                Ok(Some((file, Text::Script { view, reference }))) => Some((file, view, reference)),
                Ok(_) => None,
                Err(status) => return Script::None(Some(status)),
            };
            let reference = script.as_ref().and_then(|(file, _, reference)| {
                file.source_map.clone().or_else(|| reference.as_deref().map(str::to_owned))
            });
            let minified = script
                .as_ref()
                .map(|(_, view, _)| Text::Script { view: view.clone(), reference: None });
            if let (Some(inline), Some((file, ..))) =
                (reference.as_deref().filter(|url| url.starts_with("data:")), &script)
            {
                return self.inline(file, inline, minified, url).await;
            }
            // By habit a map lies beside its script.
            let map_url = match (&reference, &script) {
                (Some(reference), _) => script::join(url, reference),
                (None, _) => format!("{bare}.map"),
            };
            let beside = wanted(&map_url, true);
            match self.text(request.project, &beside, true).await {
                Ok(Some((file, Text::Map(map)))) => {
                    let minified = minified.map(|text| (file, text));
                    return there(map, minified, &map_url);
                }
                Ok(_) => {}
                Err(status) => return Script::None(Some(status)),
            }
            if let (None, Some((file, ..))) = (&reference, &script) {
                // It is there, and was not made of anything.
                return Script::None(Some(Status::MissingSymbol { file: file.name.clone() }));
            }
            asked.push(if script.is_some() { beside } else { at });
        }
        if !readable {
            for wanted in asked {
                notes.missing(wanted);
            }
        }
        let wanted = match (debug_id, &request.release) {
            (Some(debug_id), _) => format!("source map {debug_id} of {url}"),
            (None, Some(release)) => format!("source map of {url} in release {release}"),
            (None, None) => {
                format!("source map of {url} (the event has no debug id and no release)")
            }
        };
        Script::None(Some(Status::MissingFile { wanted }))
    }

    async fn inline(&self, file: &File, data: &str, minified: Option<Text>, url: &str) -> Script {
        // Kept under the script's digest with one bit turned: the script is there under its own.
        let mut key = file.digest;
        if let Some(byte) = key.first_mut() {
            *byte ^= 1;
        }
        let (data, name) = (data.to_owned(), file.name.clone());
        let read = self.scripts.get_with(key, async {
            self.derived
                .work(move || ScriptMap::inline(&data, name).map(|map| Text::Map(Arc::new(map))))
                .await
        });
        match read.await {
            Ok(Text::Map(map)) => there(map, minified.map(|text| (file.clone(), text)), url),
            Ok(Text::Script { .. }) => Script::None(None),
            Err(error) => Script::None(Some(Status::Malformed {
                file: file.name.clone(),
                reason: error.reason,
            })),
        }
    }

    /// A script or a map, read.
    async fn text(
        &self,
        project: ProjectId,
        wanted: &Wanted,
        is_map: bool,
    ) -> Result<Option<(File, Text)>, Status> {
        let mut again = false;
        loop {
            let found = if again {
                self.lookup.find_again(project, wanted).await
            } else {
                self.lookup.find(project, wanted).await
            };
            let file = match found {
                Ok(Some(file)) => file,
                Ok(None) => return Ok(None),
                Err(error) => {
                    tracing::warn!(%error, "the store of files did not answer");
                    return Err(unavailable(wanted));
                }
            };
            let (path, name) = (file.path.clone(), file.name.clone());
            let read = self.scripts.try_get_with(file.digest, async {
                let read = self.derived.work(move || {
                    Ok(script::read(&path)
                        .map(|read| read.and_then(|content| text(content, name, is_map))))
                });
                match read.await {
                    Ok(read) => read,
                    Err(malformed) => Ok(Err(malformed)),
                }
            });
            match read.await {
                Ok(Ok(text)) => return Ok(Some((file, text))),
                Ok(Err(malformed)) => {
                    return Err(Status::Malformed { file: file.name, reason: malformed.reason });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !again => again = true,
                Err(error) => {
                    let reason = Malformed::from_error(&*error).reason;
                    return Err(Status::Malformed { file: file.name, reason });
                }
            }
        }
    }
}

fn text(content: Vec<u8>, name: String, is_map: bool) -> Result<Text, Malformed> {
    if is_map {
        return ScriptMap::parse(&content, name).map(|map| Text::Map(Arc::new(map)));
    }
    let reference = script::reference(&content).map(Arc::from);
    let content = match String::from_utf8(content) {
        Ok(content) => content,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    Ok(Text::Script { view: Arc::new(SourceView::from_string(content)), reference })
}

fn there(map: Arc<ScriptMap>, minified: Option<(File, Text)>, url: &str) -> Script {
    let minified = match minified {
        Some((_, Text::Script { view, .. })) => Some(view),
        _ => None,
    };
    Script::There { map, minified, url: Arc::from(url) }
}

fn unavailable(wanted: &Wanted) -> Status {
    let file = format!("{wanted:?}");
    Status::Malformed { file, reason: "the store of files did not answer".to_owned() }
}

fn module_name(module: &Module) -> String {
    let file =
        module.code_file.as_deref().map(|path| path.rsplit(['/', '\\']).next().unwrap_or(path));
    let id = module.debug_id.as_deref().or(module.code_id.as_deref()).unwrap_or_default();
    match file {
        Some(file) => format!("{file} {id}"),
        None => id.to_owned(),
    }
}
