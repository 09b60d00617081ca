//! Makes the list of hostile guests from their sources, so that one without a test does not build: above
//! each `#[tool]` stands `// Shown by: MODULE::TEST`, and `foreach_guest!` hands both on to the tests,
//! where a name that is no test is a compile error. A list cannot be forgotten; a comment that is
//! missing stops the build here.
#![expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment where to write")]

use std::fmt::Write as _;
use std::path::Path;

const FOLDERS: [&str; 2] = ["guests/src", "guests/wasi/src"];
const SHOWN_BY: &str = "// Shown by: ";

fn main() {
    let mut list = String::from("macro_rules! foreach_guest {\n    ($check:ident) => {\n");
    for folder in FOLDERS {
        println!("cargo::rerun-if-changed={folder}");
        let mut files: Vec<_> = std::fs::read_dir(folder).expect("the guests are there").collect();
        files.sort_by_key(|file| file.as_ref().expect("the folder can be read").path());
        for file in files {
            let path = file.expect("the folder can be read").path();
            for (guest, test) in guests(&path) {
                writeln!(list, "        $check!({guest}, {test});").expect("a text takes more text");
            }
        }
    }
    list.push_str("    };\n}\n");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("foreach_guest.rs"), list).expect("the list can be written");
}

/// The tools of one file, each with the test that shows it.
fn guests(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).expect("a guest's source can be read");
    let mut shown_by = None;
    let mut in_tool = false;
    let mut guests = Vec::new();
    for line in text.lines() {
        if let Some(test) = line.strip_prefix(SHOWN_BY) {
            shown_by = Some(test.trim().to_owned());
        }
        in_tool |= line.starts_with("#[tool");
        if in_tool && let Some(name) = line.split_once("fn ").and_then(|(_, rest)| rest.split_once('(')) {
            let place = format!("{}: guest `{}`", path.display(), name.0);
            let test = shown_by.take().unwrap_or_else(|| panic!("{place} has no `{SHOWN_BY}MODULE::TEST` above it"));
            guests.push((name.0.to_owned(), test));
            in_tool = false;
        }
    }
    guests
}
