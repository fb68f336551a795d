//! Programs, compiled with what is on the machine.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A folder with the sources and the programs of one test.
pub struct Workshop {
    pub dir: tempfile::TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Runs a program in the folder; what it printed.
    pub fn run(&self, program: impl AsRef<Path>, args: &[&str]) -> String {
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
pub type BundleFile<'a> = (&'a str, serde_json::Value, &'a [u8]);

/// A bundle as command lines of uploads write it.
pub fn bundle(attributes: serde_json::Value, files: &[BundleFile<'_>]) -> Vec<u8> {
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
