//! What a well-behaved guest sees: its arguments, its imports, its log. If these fail, no tool works.

use crate::support::Bench;
use crate::support::echo;

#[tokio::test]
async fn a_guest_is_given_its_arguments_and_its_result_comes_back() {
    let bench = Bench::new();
    let ended = bench.run(&echo()).await;
    assert_eq!(ended.outcome.as_deref(), Ok("{}"));
    assert!(ended.memory_peak >= 2 << 16, "{}", ended.memory_peak);
    assert_eq!(ended.facts.tool.to_string(), "pack.run");
}
