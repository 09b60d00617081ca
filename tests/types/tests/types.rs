//! The cases: each is a program that must not compile, beside what the compiler says of it.

#[test]
fn p8_what_must_not_be_said_does_not_compile() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
