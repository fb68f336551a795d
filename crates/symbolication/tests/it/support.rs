//! Programs, compiled with what is on the machine.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use loom_core::{id::ProjectId, port::BoxFuture};
use loom_symbolication::{
    Config, Dump, File, Files, Format, Frame, Malformed, Module, Request, Stack, Symbolicator,
    Wanted,
};

/// A folder with the sources and the programs of one test.
pub(crate) struct Workshop {
    pub(crate) dir: tempfile::TempDir,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Runs a program in the folder; what it printed.
    pub(crate) fn run(&self, program: impl AsRef<Path>, args: &[&str]) -> String {
        let program = program.as_ref();
        let output = Command::new(program)
            .args(args)
            .current_dir(self.dir.path())
            .env("RUSTC_BOOTSTRAP", "1")
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        assert!(
            output.status.success(),
            "{} {args:?}: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A file of a bundle: name in the ZIP, its description in the manifest, content.
pub(crate) type BundleFile<'a> = (&'a str, serde_json::Value, &'a [u8]);

/// A bundle as command lines of uploads write it.
pub(crate) fn bundle(attributes: serde_json::Value, files: &[BundleFile<'_>]) -> Vec<u8> {
    let mut manifest = attributes;
    manifest["files"] =
        files.iter().map(|(path, info, _)| ((*path).to_owned(), info.clone())).collect();
    let mut bytes = b"SYSB\x02\0\0\0".to_vec();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("manifest.json", options).unwrap();
    zip.write_all(manifest.to_string().as_bytes()).unwrap();
    for (path, _, content) in files {
        zip.start_file(*path, options).unwrap();
        zip.write_all(content).unwrap();
    }
    bytes.extend(zip.finish().unwrap().into_inner());
    bytes
}

/// Files of a project, as uploads would have them.
#[derive(Default)]
pub(crate) struct Shelf {
    files: Mutex<Vec<(Wanted, File)>>,
    pub(crate) asked: AtomicUsize,
}

impl Shelf {
    /// Puts a debug file, a bundle of sources or a mapping there, under the ids that it says.
    pub(crate) fn put(&self, path: &Path) {
        let objects = loom_symbolication::inspect(path).unwrap();
        for object in objects {
            let id = object.debug_id.clone().expect("a debug id");
            let wanted = match object.format {
                Format::ProGuard => Wanted::Mapping { uuid: id },
                Format::SourceBundle => Wanted::SourceBundle { debug_id: id },
                _ => Wanted::Debug { debug_id: Some(id), code_id: None, symbols: true },
            };
            self.put_as(wanted, path, None);
        }
    }

    pub(crate) fn put_as(&self, wanted: Wanted, path: &Path, source_map: Option<&str>) {
        let content = fs::read(path).unwrap();
        let mut digest = [0_u8; 32];
        for (place, byte) in content.iter().enumerate() {
            digest[place % 32] = digest[place % 32].rotate_left(3).wrapping_add(*byte);
        }
        let file = File {
            id: "01890000-0000-7000-8000-000000000001".parse().unwrap(),
            digest,
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            path: path.to_owned(),
            source_map: source_map.map(str::to_owned),
        };
        self.files.lock().unwrap().push((wanted, file));
    }
}

impl Files for Shelf {
    fn find<'a>(
        &'a self,
        _: ProjectId,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, loom_core::Result<Option<File>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let same = |known: &Wanted| match (known, wanted) {
            (Wanted::Debug { debug_id, .. }, Wanted::Debug { debug_id: other, .. }) => {
                debug_id == other
            }
            _ => known == wanted,
        };
        let files = self.files.lock().unwrap();
        let found = files.iter().find(|(known, _)| same(known)).map(|(_, file)| file.clone());
        Box::pin(async move { Ok(found) })
    }
}

pub(crate) fn project() -> ProjectId {
    "01890000-0000-7000-8000-00000000000a".parse().unwrap()
}

/// A symbolicator with a cache in the folder.
pub(crate) fn symbolicator(shelf: &Arc<Shelf>, shop: &Workshop) -> Symbolicator {
    symbolicator_of(shelf, shop, 1 << 30)
}

pub(crate) fn symbolicator_of(
    shelf: &Arc<Shelf>,
    shop: &Workshop,
    cache_bytes: u64,
) -> Symbolicator {
    let config = Config { cache_dir: shop.path("cache"), cache_bytes, parallel: 2 };
    Symbolicator::new(shelf.clone(), config)
}

pub(crate) fn request(modules: Vec<Module>, stacks: Vec<Stack>) -> Request {
    Request { project: project(), release: None, dist: None, modules, stacks, classes: Vec::new() }
}

/// Of a module at this address.
pub(crate) fn module(path: &Path, address: u64) -> Module {
    let info = loom_symbolication::inspect(path).unwrap().remove(0);
    Module {
        debug_id: info.debug_id,
        code_id: info.code_id,
        code_file: Some(path.to_str().unwrap().to_owned()),
        address,
        ..Module::default()
    }
}

/// A stack of one frame that crashed there.
pub(crate) fn crash_at(address: u64) -> Stack {
    let frame = Frame { instruction_addr: Some(address), ..Frame::default() };
    Stack { frames: vec![frame], ..Stack::default() }
}

pub(crate) async fn walk(symbols: &Symbolicator, dump: Vec<u8>) -> Result<Dump, Malformed> {
    let read = async { Ok::<_, std::convert::Infallible>(dump.into()) };
    symbols.walk(project(), read).await.unwrap()
}
