//! Our side within this process: the sandbox with every limit on, and permits made by the way that
//! every permit is made.

use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::Digest;
use keybearer_contract::GuestRequest;
use keybearer_contract::GuestSignature;
use keybearer_contract::Limits;
use keybearer_contract::TenantId;
use keybearer_contract::TokenId;
use keybearer_contract::UnixMillis;
use keybearer_contract::Wasi;
use keybearer_gate::Permit;
use keybearer_gate::Scope;
use keybearer_gate::Scopes;
use keybearer_gate::TenantDirectory;
use keybearer_gate::TenantRecord;
use keybearer_gate::TenantState;
use keybearer_gate::TokenDirectory;
use keybearer_gate::TokenRecord;
use keybearer_gate::authenticate_token;
use keybearer_gate::issue_token;
use keybearer_sandbox::CallSetup;
use keybearer_sandbox::CompileMode;
use keybearer_sandbox::GuestFault;
use keybearer_sandbox::GuestReply;
use keybearer_sandbox::Outlet;
use keybearer_sandbox::ReplyParts;
use keybearer_sandbox::Sandbox;
use keybearer_sandbox::SandboxConfig;
use keybearer_sandbox::SigningFault;
use keybearer_sandbox::Tool;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The sandbox with one tool in it.
pub(crate) struct Ours {
    sandbox: Sandbox,
    tool: Arc<Tool>,
    limits: Limits,
    door: Door,
}

impl Ours {
    /// Loads a package's component.
    ///
    /// # Errors
    /// If it does not load.
    pub(crate) async fn new(digest: &Digest, component: &[u8]) -> anyhow::Result<Self> {
        let limits = Limits::default();
        let sandbox = Sandbox::new(SandboxConfig {
            cache_dir: None,
            cache_key: [7; 32].into(),
            ceilings: limits,
            instances: 256,
            compile: CompileMode::InProcess,
            tick: Duration::from_millis(5),
        })?;
        let tool = sandbox.load(digest, component, &Wasi::default()).await?;
        Ok(Self { sandbox, tool, limits, door: Door::new() })
    }

    /// Leave for one call. Not a part of what an instance costs, and made before the time is taken.
    pub(crate) fn permit(&self) -> Permit {
        self.door.permit(*self.tool.digest())
    }

    /// One call in a fresh instance.
    ///
    /// # Errors
    /// If it has no result.
    pub(crate) async fn call(&self, permit: Permit, arguments: &str) -> anyhow::Result<String> {
        let setup = CallSetup {
            limits: self.limits,
            deadline: Instant::now() + Duration::from_millis(self.limits.wall_ms),
            attempt: 1,
            base_urls: Vec::new(),
        };
        let ended = self.sandbox.instance(permit, &self.tool, Closed, setup).invoke(arguments.to_owned()).await;
        ended.outcome.map_err(|stop| anyhow::anyhow!("the call was stopped: {stop:?}"))
    }
}

/// The gate, with one tenant and one token.
pub(crate) struct Door {
    tenant: Arc<TenantRecord>,
    token: Arc<TokenRecord>,
    text: String,
}

impl Door {
    /// Makes a tenant and a token.
    pub(crate) fn new() -> Self {
        let tenant = TenantRecord {
            id: TenantId::random(),
            name: "bench".parse().expect("a name"),
            state: TenantState::Active,
            created: UnixMillis(1),
            limits: Limits::default(),
            calls_per_second: u32::MAX,
            concurrent_calls: u32::MAX,
        };
        let life = UnixMillis(1_000)..UnixMillis(3_000);
        let issued = issue_token(tenant.id.clone(), "bench".to_owned(), Scopes::of(&[Scope::Call]), None, life);
        Self { tenant: Arc::new(tenant), token: Arc::new(issued.record), text: issued.text.to_string() }
    }

    /// From the token's text to leave for one call.
    pub(crate) fn permit(&self, package: Digest) -> Permit {
        let principal = authenticate_token(&self.text, self, UnixMillis(2_000)).expect("the token is valid");
        let context = principal.enter(self).expect("the tenant is there");
        context.permit("echo.echo".parse().expect("a name"), package).expect("the token may call")
    }
}

impl TenantDirectory for Door {
    fn tenant(&self, id: &TenantId) -> Option<Arc<TenantRecord>> {
        (*id == self.tenant.id).then(|| Arc::clone(&self.tenant))
    }
}

impl TokenDirectory for Door {
    fn token(&self, id: &TokenId) -> Option<Arc<TokenRecord>> {
        (*id == self.token.id).then(|| Arc::clone(&self.token))
    }
}

/// No way out: what is measured here sends nothing.
struct Closed;

/// The reply that never comes.
struct Never;

impl GuestReply for Never {
    fn into_parts(self) -> ReplyParts {
        (204, Vec::new(), Vec::new())
    }
}

impl Outlet for Closed {
    type Reply = Never;

    fn send(&self, _request: GuestRequest) -> oneshot::Receiver<Result<Never, GuestFault>> {
        oneshot::channel().1
    }

    type Signature = Never;

    fn sign(&self, _asked: GuestSignature) -> oneshot::Receiver<Result<Never, SigningFault>> {
        oneshot::channel().1
    }
}

impl keybearer_sandbox::GuestSignature for Never {
    fn into_bytes(self) -> Vec<u8> {
        Vec::new()
    }
}
