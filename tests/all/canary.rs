//! The oracle over every sink (O1): random credentials of every kind go through successes, reflections and
//! failures of every sort; then everything that the server has said, sent, written or kept is searched for
//! any piece of any of them, in any form.

mod life;
mod sinks;
mod stage;

use keybearer_tests::Traces;

use sinks::Sinks;
use stage::Stage;

// If it failed, a credential would lie in the open somewhere: in a log, a backup, a trace, a metric, an error.
#[tokio::test(flavor = "multi_thread")]
async fn o1_x01_x11_x12_x14_x15_x16_x17_x19_x22_x23_x26_no_sink_holds_any_piece_of_a_credential() -> anyhow::Result<()>
{
    let mut stage = Stage::new().await?;
    let mut sinks = Sinks::default();
    stage.succeed(&mut sinks).await?;
    stage.fail(&mut sinks).await?;
    stage.mistake(&mut sinks).await?;
    stage.administer(&mut sinks).await?;
    stage.ask_everything(&mut sinks).await?;
    let named = stage.secrets();
    let secrets: Vec<_> = named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let traces = Traces::of(&secrets)?;

    sinks.add_process(&stage.server)?;
    sinks.add_folder("while running", stage.server.folder())?;
    assert!(stage.server.stop()?, "it stops cleanly");
    sinks.add_folder("at rest", stage.server.folder())?;
    sinks.add_all("spans", stage.spans());
    assert!(sinks.bytes() > 1 << 20 && sinks.names().any(|name| name == "spans"), "there is something to search");

    // The search finds what is there: each credential stands in what the upstreams received.
    let received = stage.received();
    for (name, value) in stage.sent() {
        assert!(Traces::of(&[(&name, &value)])?.find(&received).is_some(), "{name} never left: nothing was tried");
    }
    let found: Vec<_> = sinks.search(&traces).collect();
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}
