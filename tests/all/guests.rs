//! Hostile guests, called through the built server: what each of them tries, and what becomes of it
//! (threats G and W). The guests themselves are in `tests/guests`; those that no compiler makes are
//! written as text in `components`.

mod abi;
mod components;
mod environment;
mod limits;
mod outbound;
mod registry;
mod signing;
mod stage;
mod text;

include!(concat!(env!("OUT_DIR"), "/foreach_guest.rs"));

/// A guest whose test is not there does not compile.
macro_rules! assert_test_exists {
    ($guest:ident, $module:ident::$test:ident) => {
        const _: () = {
            let _ = self::$module::$test;
        };
    };
}

foreach_guest!(assert_test_exists);

/// The guests, by name.
macro_rules! name_of {
    ($guest:ident, $module:ident::$test:ident) => {
        NAMES.with_borrow_mut(|names| names.push(stringify!($guest)));
    };
}

// If a guest were left out of its package, its test would be about nothing.
#[test]
fn every_guest_of_the_sources_is_in_a_package() {
    thread_local!(static NAMES: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) });
    foreach_guest!(name_of);
    let built = keybearer_tests::Built::find().expect("the guests are packed");
    let mut described = Vec::new();
    for package in ["hostile", "hostile-wasi"] {
        described.extend(stage::described(&built, package));
    }
    described.sort_unstable();
    let mut names = NAMES.take();
    names.sort_unstable();
    assert_eq!(names, described);
}
