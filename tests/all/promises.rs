//! The promises of SECURITY.md against the tests: each names tests, and each test that it names is there
//! and runs. If this failed, a promise would be words.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

/// How many promises there are, numbered from 1.
const PROMISES: usize = 10;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the checkout")
}

/// The names of tests that the paper gives for each promise: below `- **P1 …**`, in back quotes after
/// `Tests:`, until the next promise or heading.
fn named(paper: &str) -> BTreeMap<usize, Vec<String>> {
    let mut promises: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut current = None;
    let mut in_tests = false;
    for line in paper.lines() {
        let line = line.trim_start();
        if let Some(rest) = line.strip_prefix("- **P") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let number = digits.parse().expect("a promise has a number");
            assert!(!promises.contains_key(&number), "P{number} is promised twice");
            promises.insert(number, Vec::new());
            (current, in_tests) = (Some(number), false);
        } else if line.starts_with('#') {
            current = None;
        }
        let tests = match line.split_once("Tests:") {
            Some((_, tests)) => {
                in_tests = true;
                tests
            }
            None if line.is_empty() => {
                in_tests = false;
                continue;
            }
            None => line,
        };
        if let (Some(number), true) = (current, in_tests) {
            // Every other piece between back quotes is a name; a path of modules may stand before it.
            let names = tests.split('`').skip(1).step_by(2);
            let names = names.map(|name| name.rsplit("::").next().unwrap_or(name).to_owned());
            promises.get_mut(&number).expect("it was just seen").extend(names);
        }
    }
    promises
}

/// The tests of the checkout: functions with an attribute that makes them tests, and without one that
/// keeps them from running.
fn running() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let folders = ["host", "tests", "guest-sdk", "tools", "xtask", "benches"];
    let mut folders: Vec<PathBuf> = folders.iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the checkout can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                collect(&std::fs::read_to_string(&path).expect("a source can be read"), &mut tests);
            }
        }
    }
    tests
}

fn collect(source: &str, tests: &mut BTreeSet<String>) {
    let (mut is_test, mut is_off) = (false, false);
    for line in source.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        is_off |= line.starts_with("#[ignore") || line.starts_with("#[cfg(");
        if let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) {
            let name: String =
                rest.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
            if is_test && !is_off {
                tests.insert(name);
            }
            (is_test, is_off) = (false, false);
        } else if line.is_empty() || line.ends_with(['}', '{', ';']) {
            (is_test, is_off) = (false, false);
        }
    }
}

#[test]
fn every_promise_names_tests_and_each_of_them_runs() {
    let paper = std::fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md says what is promised");
    let promises = named(&paper);
    let tests = running();
    assert!(tests.len() > 100, "the tests of the checkout are found: {}", tests.len());
    let mut broken = Vec::new();
    for number in 1..=PROMISES {
        match promises.get(&number) {
            None => broken.push(format!("P{number} is not promised")),
            Some(names) if names.is_empty() => broken.push(format!("P{number} names no test after `Tests:`")),
            Some(names) => {
                let missing = names.iter().filter(|name| !tests.contains(*name));
                broken.extend(missing.map(|name| format!("P{number} names `{name}`, which is no test that runs")));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    assert_eq!(promises.len(), PROMISES, "a promise has a number that is not known here");
}

#[test]
fn a_promise_is_read_with_its_tests_and_not_with_its_words() {
    let paper = "- **P1 Blind guest.** No `byte`.\n  Tests: `a::first`,\n  `second`\n\n  and `words`\n- **P2 Own.**\n  x\n# More\nTests: `none`\n";
    let expected = BTreeMap::from([(1, vec!["first".to_owned(), "second".to_owned()]), (2, Vec::new())]);
    assert_eq!(named(paper), expected);
}

#[test]
fn only_functions_that_run_are_tests() {
    let mut tests = BTreeSet::new();
    let source = "#[test]\nfn one() {}\n\n#[tokio::test(flavor = \"multi_thread\")]\npub(super) async fn two() {\n}\n\
                  #[test]\n#[ignore]\nfn three() {}\nfn four() {}\n// #[test]\nfn five() {}\n#[test]\n// why\nfn six() {}\n";
    collect(source, &mut tests);
    assert_eq!(tests, BTreeSet::from(["one", "two", "six"].map(str::to_owned)));
}
