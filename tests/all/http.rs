//! The HTTP API as it is misused: bodies, framing, slowness, methods, tokens in the wrong place; and what
//! every refusal looks like.

mod bodies;
mod framing;
mod packages;
mod refusals;
mod slow;

use keybearer_tests::Answer;

/// What no answer tells: names of our files, of our parts and of this machine.
const INSIDE: &[&str] =
    &[".rs", "store.db", "sqlite", "panicked", "/home", "/tmp", "/root", "127.0.0.1", "serde", "Error("];

/// A refusal as RFC 9457 and our document have it: this status and code, words that help, and nothing of the
/// inside.
fn assert_problem(answer: &Answer, status: u16, code: &str, what: &str) {
    let text = answer.text();
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {text}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store, private"), "{what}");
    let problem = answer.json();
    assert_eq!(problem["type"], format!("urn:keybearer:problem:{code}"), "{what}");
    assert_eq!(problem["status"], status, "{what}");
    for field in ["title", "detail", "party"] {
        assert!(problem[field].as_str().is_some_and(|words| words.len() > 3), "{what}: {field}: {text}");
    }
    let known = ["type", "title", "status", "detail", "code", "party", "instance", "pointer", "limit"];
    let members = problem.as_object().map(|members| members.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    assert!(members.iter().all(|member| known.contains(&member.as_str())), "{what}: {members:?}");
    assert!(INSIDE.iter().all(|inside| !text.contains(inside)), "{what} tells of the inside: {text}");
}
