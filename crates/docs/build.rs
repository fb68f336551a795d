//! Lists the pages of `docs/` for the binary: an array of path and text.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo by standard output")]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let root = PathBuf::from("../../docs");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut pages = Vec::new();
    find(&root, "", &mut pages)?;
    pages.sort();
    let mut code = String::from("&[\n");
    for page in &pages {
        // Relative to the manifest, so that the text of the build does not depend on where it is done.
        let file = format!("/../../docs/{page}.md");
        code += &format!(
            "    ({page:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {file:?}))),\n"
        );
    }
    code += "]\n";
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("pages.rs"), code)
}

/// Adds every `.md` file under `folder`, named by its path from `docs/` without the ending.
fn find(folder: &Path, prefix: &str, pages: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if entry.file_type()?.is_dir() {
            find(&entry.path(), &format!("{prefix}{name}/"), pages)?;
        } else if let Some(stem) = name.strip_suffix(".md") {
            pages.push(format!("{prefix}{stem}"));
        }
    }
    Ok(())
}
