//! Reading configuration: everything that is wrong at once, and no secret in what is told.

use std::{fs, time::Duration};

use loom_core::config::Env;

const SECRET: &str = "hunter2-of-the-vault";

fn env(vars: &[(&str, &str)]) -> Env {
    Env::new(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn problems(env: &Env) -> Vec<String> {
    env.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_set_means_the_defaults_and_no_problem() {
    let mut env = env(&[]);
    assert_eq!(env.get("A", "x".to_owned(), "a word"), "x");
    assert_eq!(env.number("B", 5_u16, 1, 9), 5);
    assert!(env.flag("C", true));
    assert_eq!(env.secs("D_SECS", 30, 1, 60), Duration::from_secs(30));
    assert_eq!(env.optional::<u8>("E", "a number"), None);
    assert_eq!(env.path("F"), None);
    assert!(env.list("G").is_empty());
    assert_eq!(env.choice("H", "red", &[("red", 1), ("blue", 2)]), Some(1));
    assert!(env.secret("I").is_none());
    assert!(env.problems().is_empty());
    let names: Vec<_> = env.settings().iter().map(|setting| setting.name.as_str()).collect();
    assert_eq!(names, ["A", "B", "C", "D_SECS", "E", "F", "G", "H", "I"]);
    assert!(env.settings().iter().all(|setting| setting.value == setting.default));
}

#[test]
fn what_is_set_wins_and_space_around_it_is_no_part_of_it() {
    let mut env = env(&[
        ("A", " y "),
        ("B", "9"),
        ("C", "false"),
        ("D_SECS", "1"),
        ("F", "/srv/data"),
        ("G", "a, b,,c ,"),
        ("H", "blue"),
        ("I", " hunter2-of-the-vault\n"),
    ]);
    assert_eq!(env.get("A", "x".to_owned(), "a word"), "y");
    assert_eq!(env.number("B", 5_u16, 1, 9), 9);
    assert!(!env.flag("C", true));
    assert_eq!(env.secs("D_SECS", 30, 1, 60), Duration::from_secs(1));
    assert_eq!(env.path("F").unwrap().to_str(), Some("/srv/data"));
    assert_eq!(env.list("G"), ["a", "b", "c"]);
    assert_eq!(env.choice("H", "red", &[("red", 1), ("blue", 2)]), Some(2));
    assert_eq!(env.secret("I").unwrap().expose(), SECRET);
    assert!(env.problems().is_empty());
}

#[test]
fn an_empty_value_counts_as_absent() {
    let mut env = env(&[("A", ""), ("B", "  "), ("S", ""), ("S_FILE", " ")]);
    assert_eq!(env.number("A", 5_u16, 1, 9), 5);
    assert!(env.flag("B", true));
    assert!(env.secret("S").is_none());
    assert!(env.problems().is_empty());
}

#[test]
fn all_problems_are_told_at_once_each_with_what_is_allowed() {
    let mut env = env(&[
        ("A", "seven"),
        ("B", "99"),
        ("C", "yes"),
        ("H", "green"),
        ("E", "-1"),
        ("D_SECS", "0"),
    ]);
    // Whatever is wrong, reading goes on with the default.
    assert_eq!(env.number("A", 5_u16, 1, 9), 5);
    assert_eq!(env.number("B", 5_u16, 1, 9), 5);
    assert!(env.flag("C", true));
    assert_eq!(env.choice("H", "red", &[("red", 1), ("blue", 2)]), Some(1));
    assert_eq!(env.optional::<u8>("E", "a small number"), None);
    assert_eq!(env.secs("D_SECS", 30, 1, 60), Duration::from_secs(30));
    assert_eq!(
        problems(&env),
        [
            "A = \"seven\": must be a number from 1 to 9",
            "B = \"99\": must be a number from 1 to 9",
            "C = \"yes\": must be true or false",
            "H = \"green\": must be one of red, blue",
            "E = \"-1\": must be a small number",
            "D_SECS = \"0\": must be a number from 1 to 60",
        ]
    );
}

#[test]
fn a_secret_comes_from_a_file_without_its_line_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let mut env = env(&[("KEY_FILE", file.to_str().unwrap())]);
    assert_eq!(env.secret("KEY").unwrap().expose(), SECRET);
    assert!(env.problems().is_empty());
    assert!(env.unknown(&["KEY"]).is_empty());
}

#[test]
fn a_secret_given_twice_or_in_a_bad_file_is_a_problem_that_names_the_file_variable() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, missing) = (dir.path().join("empty"), dir.path().join("missing"));
    fs::write(&empty, " \n").unwrap();
    let mut env = env(&[
        ("A", SECRET),
        ("A_FILE", "/run/secrets/a"),
        ("B_FILE", empty.to_str().unwrap()),
        ("C_FILE", missing.to_str().unwrap()),
    ]);
    for name in ["A", "B", "C"] {
        assert!(env.secret(name).is_none(), "{name}");
    }
    let told = problems(&env);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("A_FILE = \"/run/secrets/a\": give A or A_FILE, not both"));
    assert!(told[1].starts_with("B_FILE = ") && told[1].ends_with("the file is empty"));
    assert!(told[2].starts_with("C_FILE = ") && told[2].contains("the file cannot be read"));
    assert!(!told.concat().contains("hunter2"), "{told:?}");
}

#[test]
fn a_secret_is_shown_nowhere() {
    let mut env = env(&[("KEY", SECRET)]);
    assert!(env.secret("KEY").is_some());
    env.problem("KEY", "must be 32 bytes in base64");
    assert_eq!(problems(&env), ["KEY: must be 32 bytes in base64"]);
    let setting = &env.settings()[0];
    assert!(setting.secret);
    assert_eq!(setting.value, "[redacted]");
    let all = format!("{:?} {:?}", env.settings(), env.problems());
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn what_nothing_reads_is_unknown_unless_it_is_somebody_elses() {
    let mut env = env(&[
        ("LOOM_SERVER_PORT", "1"),
        ("LOOM_SERVER_PROT", "1"),
        ("LOOM_SERVER_PORT_FILE", "/x"),
        ("LOOM_SERVER_KEY_FILE", "/dev/null"),
        ("PATH", "/bin"),
    ]);
    env.number("LOOM_SERVER_PORT", 5_u16, 1, 9);
    env.secret("LOOM_SERVER_KEY");
    // Only a secret has a file beside it.
    assert_eq!(env.unknown(&["LOOM_SERVER_"]), ["LOOM_SERVER_PORT_FILE", "LOOM_SERVER_PROT"]);
}

#[test]
fn of_two_values_the_later_one_wins() {
    assert_eq!(env(&[("A", "1"), ("A", "2")]).number("A", 5_u16, 1, 9), 2);
}
