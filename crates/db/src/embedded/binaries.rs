//! Finding PostgreSQL on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::error::PrivateError;

const OLDEST: u32 = 15;

/// Where distributions put PostgreSQL; `*` stands for the rest of one directory's name.
const USUAL: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/usr/local", "pgsql", "bin"),
    ("/usr/libexec", "postgresql", ""),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    pub(super) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }
}

/// The given ones, else those that fit the existing cluster, else the newest.
pub(super) fn find(
    given: Option<&Path>,
    cluster: Option<(&Path, u32)>,
) -> Result<Binaries, PrivateError> {
    let found = match given {
        Some(dir) => {
            let problem = |problem: String| PrivateError::Given { dir: dir.to_owned(), problem };
            let binaries = probe(dir).map_err(problem)?;
            if binaries.major < OLDEST {
                return Err(problem(format!("this is PostgreSQL {}", binaries.major)));
            }
            vec![binaries]
        }
        None => search(candidates()),
    };
    choose(found, cluster)
}

fn choose(
    mut found: Vec<Binaries>,
    cluster: Option<(&Path, u32)>,
) -> Result<Binaries, PrivateError> {
    found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    let majors: Vec<_> = found.iter().map(|binaries| binaries.major.to_string()).collect();
    let majors = majors.join(", ");
    match cluster {
        Some((dir, cluster)) => {
            found.into_iter().find(|binaries| binaries.major == cluster).ok_or_else(|| {
                let found = if majors.is_empty() { "none".to_owned() } else { majors };
                PrivateError::OtherMajor { dir: dir.to_owned(), cluster, found }
            })
        }
        None => found.into_iter().find(|binaries| binaries.major >= OLDEST).ok_or_else(|| {
            let found = if majors.is_empty() { majors } else { format!("; found only {majors}") };
            PrivateError::NotInstalled { found }
        }),
    }
}

pub(crate) fn candidates() -> Vec<PathBuf> {
    // Not configuration of ours: PATH is how this machine says where its programs are.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for (parent, prefix, bin) in USUAL {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        dirs.extend(named.map(|entry| entry.path().join(bin)));
    }
    dirs
}

fn search(dirs: Vec<PathBuf>) -> Vec<Binaries> {
    let mut found: Vec<Binaries> = Vec::new();
    for dir in dirs {
        // On PATH is often a link into the real directory, and initdb only in the latter.
        let real = fs::canonicalize(dir.join("postgres"))
            .ok()
            .and_then(|postgres| postgres.parent().map(Path::to_owned));
        for dir in real.into_iter().chain([dir]) {
            if found.iter().any(|known| known.dir == dir) {
                break;
            }
            if let Ok(binaries) = probe(&dir) {
                found.push(binaries);
                break;
            }
        }
    }
    found
}

/// Both programs are there and `postgres` says what it is.
fn probe(dir: &Path) -> Result<Binaries, String> {
    for name in ["postgres", "initdb"] {
        if !dir.join(name).is_file() {
            return Err(format!("there is no `{name}` in it"));
        }
    }
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("its `postgres` does not run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let major = major(&said).ok_or_else(|| format!("its `postgres` says {:?}", said.trim()))?;
    Ok(Binaries { dir: dir.to_owned(), major })
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)`, `postgres (PostgreSQL) 18beta1`
pub(crate) fn major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(majors: &[u32]) -> Vec<Binaries> {
        let each = |major: &u32| Binaries { dir: format!("/pg/{major}").into(), major: *major };
        majors.iter().map(each).collect()
    }

    #[test]
    fn reads_what_postgres_says() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("wrapper 3"), None);
    }

    #[test]
    fn takes_the_newest_unless_there_is_a_cluster() {
        assert_eq!(choose(binaries(&[14, 17, 15]), None).unwrap().major, 17);
        let cluster = Some((Path::new("/data"), 15));
        assert_eq!(choose(binaries(&[14, 17, 15]), cluster).unwrap().major, 15);
    }

    #[test]
    fn says_what_is_missing() {
        let none = choose(Vec::new(), None).unwrap_err().to_string();
        assert!(none.contains("apt-get install postgresql"), "{none}");
        let old = choose(binaries(&[13]), None).unwrap_err().to_string();
        assert!(old.contains("found only 13"), "{old}");
        let other = choose(binaries(&[17]), Some((Path::new("/data"), 15))).unwrap_err();
        let other = other.to_string();
        assert!(other.contains("PostgreSQL 15") && other.contains("found: 17"), "{other}");
    }

    #[test]
    fn a_given_directory_must_hold_it() {
        let wrong = find(Some(Path::new("/nowhere")), None).unwrap_err().to_string();
        assert!(
            wrong.starts_with("LOOM_SERVER_PG_BIN = /nowhere: there is no `postgres`"),
            "{wrong}"
        );
    }
}
