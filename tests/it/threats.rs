//! docs/threats.md against the tests that it names: each is there, in the file that is named.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of functions in a file.
fn functions(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap();
    let names = text.split("fn ").skip(1).filter_map(|after| after.split_once('(').map(|(name, _)| name.to_owned()));
    names.filter(|name| !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')).collect()
}

/// Where a table cell says a file is: `it/x.rs` is below tests.
fn place(named: &str) -> PathBuf {
    let path = root().join(named);
    if path.is_file() { path } else { root().join("tests").join(named) }
}

#[test]
fn z1_every_test_that_a_threat_names_is_there() {
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    let everywhere: BTreeSet<String> = files.iter().flat_map(|file| functions(file)).collect();
    let text = fs::read_to_string(root().join("docs/threats.md")).unwrap();
    let (mut threats, mut tests) = (0, 0);
    let mut lost = Vec::new();
    // | threat | control | test |, below a heading that says so.
    let mut in_table = false;
    for line in text.lines() {
        if !line.starts_with('|') {
            in_table = false;
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if cells.as_slice() == ["Threat", "Control", "Test"] {
            in_table = true;
            continue;
        }
        if !in_table || line.starts_with("| ---") {
            continue;
        }
        let [threat, control, named] = cells.as_slice() else { panic!("three cells: {line}") };
        assert!(!threat.is_empty() && !control.is_empty() && !named.is_empty(), "{line}");
        threats += 1;
        let mut file = None;
        for word in named.split('`').skip(1).step_by(2) {
            if word.contains('/') {
                if word.ends_with(".rs") {
                    assert!(place(word).is_file(), "{threat}: no file {word}");
                    file = Some(functions(&place(word)));
                }
            } else if word.len() > 6 && word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_') {
                tests += 1;
                let found = file.as_ref().map_or_else(|| everywhere.contains(word), |file| file.contains(word));
                if !found {
                    lost.push(format!("{threat}: {word}"));
                }
            }
        }
    }
    assert!(lost.is_empty(), "tests that docs/threats.md names and that are not where it says:\n{}", lost.join("\n"));
    assert!(threats > 60 && tests > 100, "{threats} threats, {tests} tests: is the table still read?");
}
