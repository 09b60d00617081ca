//! G11–G13: what a guest may hand to an import. If one of these failed, a guest could have the host read
//! or write where it should not, or work for it without end.

use serde_json::json;

use super::stage::Stage;

#[tokio::test]
pub(super) async fn g11_pointers_out_of_bounds_trap_before_anything_is_copied() {
    let stage = Stage::start().await;
    let (before, _) = stage.size();
    for (trick, kind) in [
        ("text_beyond_the_end", "out_of_bounds"),
        ("text_of_4_gib", "out_of_bounds"),
        ("text_wraps_around", "out_of_bounds"),
        ("slot_beyond_the_end", "out_of_bounds"),
        ("url_beyond_the_end", "out_of_bounds"),
        ("headers_beyond_the_end", "out_of_bounds"),
        ("headers_of_4_gib", "out_of_bounds"),
        ("headers_times_size_wraps", "out_of_bounds"),
        ("headers_unaligned", "contract"),
        ("body_beyond_the_end", "out_of_bounds"),
        ("body_neither_some_nor_none", "contract"),
        ("method_unknown", "contract"),
        ("level_unknown", "contract"),
        ("answer_beyond_the_end", "out_of_bounds"),
        ("answer_unaligned", "contract"),
        ("requests_beyond_the_end", "out_of_bounds"),
        ("requests_of_4_gib", "out_of_bounds"),
        // All of memory is no text: it holds bytes that are not UTF-8.
        ("text_overlaps_everything", "contract"),
    ] {
        let detail = stage.trap("pointers", json!({"trick": trick})).await;
        assert!(detail.contains(kind), "{trick}: {detail}");
    }
    let (after, _) = stage.size();
    assert!(after < before + (64 << 10), "from {before} kB to {after} kB");
    // Only the two whose request was sound, and whose answer had no place, were sent.
    assert_eq!(stage.upstream.recorded().len(), 2);
    stage.control().await;
}

#[tokio::test]
pub(super) async fn g12_lists_of_nothing_cost_what_they_would_make() {
    let stage = Stage::start().await;
    let (before, _) = stage.size();
    for (requests, headers) in [(1000, 100_000), (100_000, 10), (1, 500_000), (1, 800_000)] {
        let args = json!({"requests": requests, "headers": headers});
        assert_eq!(stage.limit("empties", args).await, "hostcall_fuel", "{requests} x {headers}");
    }
    // What can be afforded is looked at, and refused for what it is.
    assert_eq!(stage.result("empties", json!({"requests": 1, "headers": 60_000})).await, 1);
    let (after, _) = stage.size();
    // The guests' own memories, which the pool keeps for a while, and little more.
    assert!(after < before + (128 << 10), "from {before} kB to {after} kB");
    assert_eq!(stage.upstream.recorded().len(), 0, "nothing was sent");
    stage.control().await;
}

#[tokio::test]
pub(super) async fn g13_texts_that_are_none_stop_the_guest_and_odd_ones_are_refused() {
    let stage = Stage::start().await;
    for text in ["invalid", "surrogate", "overlong", "cut"] {
        for place in ["url", "name", "slot", "log"] {
            let detail = stage.trap("bad_strings", json!({"text": text, "place": place})).await;
            assert!(detail.contains("utf-8"), "{text} in {place}: {detail}");
        }
    }
    for (text, place, expected) in [
        ("nul", "url", "malformed url"),
        ("nul", "name", "malformed header"),
        ("nul", "value", "malformed header"),
        ("nul", "slot", "None"),
        ("nul", "log", "logged"),
        ("long:100000", "url", "malformed url"),
        ("long:100000", "name", "malformed header"),
        ("long:100000", "value", "malformed header"),
        ("long:100000", "slot", "None"),
        ("long:6000000", "name", "malformed header"),
        ("long:6000000", "value", "malformed header"),
        ("long:6000000", "slot", "None"),
        ("long:6000000", "log", "logged"),
    ] {
        let result = stage.result("bad_strings", json!({"text": text, "place": place})).await;
        assert_eq!(result, expected, "{text} in {place}");
    }
    assert_eq!(stage.upstream.recorded().len(), 0, "nothing was sent");
    stage.control().await;
}
