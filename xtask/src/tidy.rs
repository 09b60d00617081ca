//! The rules of the house that no compiler checks, over every file of the checkout, with or without git.
//! A list of exceptions here must be met exactly: one that is not needed any more fails too.

use std::collections::BTreeSet;

use crate::place;

/// A file that is longer is two.
const LINES_MAX: usize = 600;

/// What is made, fetched or recorded, not written.
const NOT_OURS: [&str; 5] = ["target", ".git", ".tools", "Cargo.lock", "benches/runs"];

/// Files that hold unsafe code, and folders (with a slash) whose every file may.
const UNSAFE: [&str; 2] = [
    // Compiled code is loaded here, and nowhere else.
    "host/sandbox/src/precompiled.rs",
    // Guests that do what no tool may.
    "tests/guests/",
];

/// Where a secret is defined.
const SECRET: &str = "host/strongbox/src/secret.rs";

/// Files that read a secret's bytes, their tests apart: placing, sealing, finding, and what becomes one.
const EXPOSING: [&str; 15] = [
    "host/strongbox/src/accept.rs",
    "host/strongbox/src/authorization.rs",
    "host/strongbox/src/carry.rs",
    "host/strongbox/src/function.rs",
    "host/strongbox/src/identity.rs",
    "host/strongbox/src/made.rs",
    "host/strongbox/src/minted.rs",
    "host/strongbox/src/place.rs",
    "host/strongbox/src/proof.rs",
    "host/strongbox/src/registration.rs",
    "host/strongbox/src/scrub/sets.rs",
    "host/strongbox/src/seal.rs",
    "host/strongbox/src/successor.rs",
    "host/strongbox/src/svid.rs",
    "host/strongbox/src/webhook.rs",
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// This file names what it looks for.
    fn is_this(&self) -> bool {
        self.path == "xtask/src/tidy.rs"
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    /// The numbers of the lines that hold any of the words.
    fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let lines = self.text.lines().enumerate();
        lines
            .filter(|(_, line)| words.iter().any(|word| line.contains(word)))
            .map(|(index, line)| format!("{}:{}: {}", self.path, index + 1, line.trim()))
            .collect()
    }
}

/// Every file of ours that is text.
fn sources() -> Vec<Source> {
    let root = place::root();
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the checkout") {
            let path = entry.expect("an entry of the checkout").path();
            let relative = path.strip_prefix(&root).expect("it lies in the checkout").display().to_string();
            if NOT_OURS.contains(&relative.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                sources.push(Source { path: relative, text });
            }
        }
    }
    assert!(sources.iter().any(Source::is_this), "the checkout is looked at");
    sources
}

fn rust() -> impl Iterator<Item = Source> {
    sources().into_iter().filter(Source::is_rust)
}

#[track_caller]
fn none(found: Vec<String>, what_to_do: &str) {
    assert!(found.is_empty(), "{what_to_do}:\n{}", found.join("\n"));
}

#[test]
fn every_rust_file_opens_by_saying_what_it_is_for() {
    // What must not compile is one statement; it opens with the sentence that it shows.
    let opening = |source: &Source| if source.path.starts_with("tests/types/cases/") { "//" } else { "//! " };
    let silent = rust().filter(|source| !source.text.starts_with(opening(source)));
    none(silent.map(|source| source.path).collect(), "open the file with a paragraph, `//! ...`");
}

#[test]
fn no_file_is_longer_than_one_reads_at_a_time() {
    let lines = |source: &Source| source.text.lines().count();
    let long = rust().filter(|source| lines(source) > LINES_MAX);
    let what_to_do = format!("more than {LINES_MAX} lines: move what belongs together to a file of its own");
    none(long.map(|source| format!("{}: {}", source.path, lines(&source))).collect(), &what_to_do);
}

#[test]
fn a_module_lies_beside_its_folder() {
    let inside = rust().filter(|source| source.path.ends_with("/mod.rs"));
    none(inside.map(|source| source.path).collect(), "call it `folder.rs`, beside `folder/`");
}

#[test]
fn nothing_is_put_off_and_no_test_is_skipped() {
    let words = ["#[ignore", "todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"];
    // That one looks for tests that do not run.
    let looks = |source: &Source| source.is_this() || source.path == "tests/all/promises.rs";
    let sources = sources();
    let found = sources.iter().filter(|source| !looks(source)).flat_map(|source| source.lines_with(&words)).collect();
    none(found, "finish it, or write down what is not promised");
}

#[test]
fn no_lint_is_silenced_for_good() {
    let words = ["[allow(", ", allow("];
    let found = rust().filter(|source| !source.is_this()).flat_map(|source| source.lines_with(&words)).collect();
    none(found, "use `#[expect(lint, reason = \"...\")]`, which complains when it is not needed any more");
}

#[test]
fn unsafe_code_stands_where_it_is_named_and_nowhere_else() {
    let words = ["unsafe {", "unsafe fn", "unsafe extern", "unsafe impl", "unsafe trait", "unsafe("];
    let holding: Vec<_> =
        rust().filter(|source| !source.is_this()).filter(|source| !source.lines_with(&words).is_empty()).collect();
    let place = |source: &Source| UNSAFE.into_iter().find(|place| source.path.starts_with(place));
    let elsewhere = holding.iter().filter(|source| place(source).is_none());
    none(elsewhere.map(|source| source.path.clone()).collect(), "unsafe code has two places; this is none of them");
    let used: BTreeSet<_> = holding.iter().filter_map(place).collect();
    assert_eq!(used, BTreeSet::from(UNSAFE), "a place that holds none any more is taken off the list");
}

#[test]
fn p8_a_secret_is_read_in_named_files_of_the_strongbox_only() {
    let reading = rust()
        .filter(|source| !source.is_this() && !source.is_test() && source.path != SECRET)
        .filter(|source| source.text.contains(".expose()"));
    let files: BTreeSet<_> = reading.map(|source| source.path).collect();
    assert_eq!(files, EXPOSING.map(str::to_owned).into(), "these files read secrets");
    let secret = rust().find(|source| source.path == SECRET).expect("secrets have a file");
    assert!(secret.text.contains("pub(crate) fn expose("), "reading stays within the strongbox");
    none(secret.lines_with(&["pub fn expose", "derive("]), "a secret shows nothing and derives nothing");
}

#[test]
fn p8_an_armed_request_is_opened_in_one_file_of_egress() {
    let outside = rust().filter(|source| !source.is_this() && !source.is_test());
    let outside = outside.filter(|source| !source.path.starts_with("host/strongbox/"));
    let opening = outside.filter(|source| !source.lines_with(&["OpenArmed", "armed.open()", "Armed::open"]).is_empty());
    let files: Vec<_> = opening.map(|source| source.path).collect();
    assert_eq!(files, ["host/egress/src/dispatch.rs"], "these files see what goes on the wire");
}

#[test]
fn every_item_of_the_guests_world_is_documented() {
    let world = std::fs::read_to_string(place::root().join("wit/world.wit")).expect("the world lies in wit/");
    let mut silent = Vec::new();
    let mut documented = false;
    for (index, line) in world.lines().enumerate() {
        let line = line.trim();
        let needs_none = line.is_empty() || ["}", "use ", "import "].iter().any(|start| line.starts_with(start));
        if !needs_none && !line.starts_with("//") && !documented {
            silent.push(format!("wit/world.wit:{}: {line}", index + 1));
        }
        documented = line.starts_with("///");
    }
    none(silent, "write what a tool's author needs to know of it, `/// ...`");
}

#[test]
fn nothing_names_a_path_of_somebodys_machine() {
    // Split, so that this file does not.
    let words = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("../sha", "red")];
    let found = sources().iter().flat_map(|source| source.lines_with(&words)).collect();
    none(found, "the project speaks of itself alone");
}

#[test]
fn ids_in_papers_begin_as_ids_do() {
    // An id of no kind in a recipe for an emergency is a condition that is never met.
    let ids = std::fs::read_to_string(place::root().join("host/contract/src/id.rs")).expect("ids are the contract's");
    let (_, ids) = ids.split_once("opaque_id!(").expect("ids");
    let mut kinds: Vec<_> = ids.split('"').skip(1).step_by(2).filter(|kind| kind.len() <= 5).collect();
    kinds.extend(["kb", "kbr", "kbop", "whsec"]);
    let is_of_none = |line: &String| {
        line.match_indices("_…").any(|(at, _)| {
            let start = line[..at].rfind(|letter: char| !letter.is_ascii_lowercase()).map_or(0, |before| before + 1);
            !kinds.contains(&&line[start..at])
        })
    };
    let papers = sources().into_iter().filter(|source| source.path.ends_with(".md"));
    let lines = papers.flat_map(|paper| paper.lines_with(&["_…"]));
    none(lines.filter(|line| is_of_none(line)).collect(), "write the id with its own first letters");
}

#[test]
fn who_runs_guests_and_who_reads_secrets_are_not_linked() {
    for (one, other) in [("keybearer-sandbox", "keybearer-strongbox"), ("keybearer-strongbox", "keybearer-sandbox")] {
        let below = depends_on(one);
        assert!(below.contains("keybearer-contract"), "cargo names what {one} depends on: {below:?}");
        assert!(!below.contains(other), "{one} reaches {other}: the invariant of the house");
    }
}

/// Everything that a crate is linked with, directly or not.
fn depends_on(package: &str) -> BTreeSet<String> {
    let tree = std::process::Command::new("cargo")
        .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(place::root())
        .output()
        .expect("cargo runs");
    let lines = String::from_utf8(tree.stdout).expect("cargo speaks UTF-8");
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn every_room_says_in_its_manifest_what_it_is() {
    let members = sources().into_iter().filter(|source| source.path.ends_with("/Cargo.toml"));
    let silent = members.filter(|source| !source.text.contains("\ndescription = \""));
    none(silent.map(|source| source.path).collect(), "write a `description`");
}

#[test]
fn the_licences_and_the_gate_are_where_people_look_for_them() {
    for path in ["LICENSE-MIT", "LICENSE-APACHE", "CONTRIBUTING.md", ".ci/run", ".cargo/deny.toml", "clippy.toml"] {
        assert!(place::root().join(path).is_file(), "{path} is missing");
    }
}
