//! The bare server: hyper, and for each request a fresh instance that is handed the body. No routes, no
//! authentication, no checks, no deadlines. With an upstream it puts the bearer token on what the guest
//! sends; with a file it commits one record for each call before it answers.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::floor::Floor;
use crate::floor::commit::Commit;
use crate::floor::outbound::Outbound;
use crate::floor::outbound::Upstream;

/// What the bare server is started with.
#[derive(Args)]
pub(crate) struct Setup {
    /// The tool's component.
    #[arg(long)]
    component: PathBuf,
    /// The tool's name within it.
    #[arg(long)]
    tool: String,
    /// Where records are committed, synced in groups.
    #[arg(long)]
    commit: Option<PathBuf>,
    /// A file that describes the upstream, JSON.
    #[arg(long)]
    upstream: Option<PathBuf>,
}

struct Bare {
    floor: Floor,
    tool: String,
    commit: Option<Commit>,
}

/// Serves until it is killed.
///
/// # Errors
/// If it cannot start.
pub(crate) fn serve(setup: Setup) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let component = std::fs::read(&setup.component).context("the component")?;
        let outbound = setup.upstream.as_deref().map(outbound).transpose()?;
        let commit = setup.commit.as_deref().map(Commit::open).transpose()?;
        let bare = Arc::new(Bare { floor: Floor::new(&component, outbound)?, tool: setup.tool, commit });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        crate::listening(listener.local_addr()?);
        let mut ended = std::pin::pin!(crate::children::no_longer_needed());
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                () = &mut ended => return Ok(()),
            };
            stream.set_nodelay(true)?;
            let bare = Arc::clone(&bare);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&bare), request));
                let http = hyper::server::conn::http1::Builder::new();
                // The load generator hangs up at the end of each slice.
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    })
}

fn outbound(path: &Path) -> anyhow::Result<Arc<Outbound>> {
    let upstream: Upstream = serde_json::from_slice(&std::fs::read(path).context("the upstream")?)?;
    Ok(Arc::new(Outbound::new(&upstream)?))
}

async fn answer(bare: Arc<Bare>, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let result = bare.floor.call(&bare.tool, std::str::from_utf8(&body)?).await?;
    if let Some(commit) = &bare.commit {
        commit.record().await?;
    }
    let response = Response::builder().header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(result)))?)
}
