//! Bindings: a credential goes where its slot is bound, for what its grant allows, in the version that was
//! approved, and nowhere else; and who may publish what.

mod places;
mod publishing;
mod versions;

use keybearer_tests::Authority;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Upstream;
use serde_json::Value;
use serde_json::json;

/// An upstream that takes whatever comes and says what it was.
async fn upstream(authority: &Authority, names: &[&str]) -> anyhow::Result<Upstream> {
    Upstream::start(authority, names, |request: Recorded| async move {
        Reply::json(200, &json!({"method": request.method, "target": request.target}))
    })
    .await
}

/// The items of a list that the API answered.
fn items(answer: &keybearer_tests::Answer) -> Vec<Value> {
    answer.json()["items"].as_array().cloned().unwrap_or_default()
}
