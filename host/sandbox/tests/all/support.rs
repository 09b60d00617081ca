//! What the tests share: guests written as text, permits, and an outlet that answers by itself.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::Digest;
use keybearer_contract::GuestRequest;
use keybearer_contract::GuestSignature;
use keybearer_contract::Limits;
use keybearer_contract::TenantId;
use keybearer_contract::ToSign;
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
use keybearer_sandbox::Ended;
use keybearer_sandbox::GuestFault;
use keybearer_sandbox::GuestReply;
use keybearer_sandbox::Instance;
use keybearer_sandbox::LoadFailed;
use keybearer_sandbox::Outlet;
use keybearer_sandbox::ReplyParts;
use keybearer_sandbox::Sandbox;
use keybearer_sandbox::SandboxConfig;
use keybearer_sandbox::SigningFault;
use keybearer_sandbox::Tool;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A guest: the world's imports, an allocator, `describe` that names nothing, and `invoke` with this
/// body. `$tp $tl $ap $al` are its parameters; `$ok ptr len` and `$failed ptr len` make its result.
/// Memory below 1024 is the scaffold's own. `items` may begin with imports, up to `;; then`.
pub(crate) fn guest(items: &str, body: &str) -> Vec<u8> {
    encode(&core(items, "(i32.const 512)", body))
}

/// The same with a `describe` of its own, which gives the address of (pointer, length).
pub(crate) fn core(items: &str, describe: &str, body: &str) -> String {
    let (imports, items) = match items.split_once(";; then") {
        Some((imports, items)) => (imports, items),
        None => ("", items),
    };
    format!(
        r#"(module
  {imports}
  (import "keybearer:tool/http@0.1.0" "send"
    (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "keybearer:tool/http@0.1.0" "send-all" (func $send_all (param i32 i32 i32)))
  (import "keybearer:tool/log@0.1.0" "write" (func $log (param i32 i32 i32)))
  (import "keybearer:tool/call@0.1.0" "current" (func $current (param i32)))
  (import "keybearer:tool/call@0.1.0" "base-url" (func $base_url (param i32 i32 i32)))
  (global $heap (mut i32) (i32.const 65536))
  (func $cabi_realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get 2) (i32.const 1)))
      (i32.xor (i32.sub (local.get 2) (i32.const 1)) (i32.const -1))))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (block $enough
      (br_if $enough (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
      (br_if $enough (i32.ne (i32.const -1) (memory.grow
        (i32.add (i32.const 1) (i32.shr_u (i32.sub (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
          (i32.const 16))))))
      (unreachable))
    (local.get $at))
  (func $ok (param i32 i32) (result i32)
    (i32.store (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (local.get 0))
    (i32.store (i32.const 24) (local.get 1))
    (i32.const 16))
  (func $failed (param i32 i32) (result i32)
    (i32.store (i32.const 16) (i32.const 1))
    (i32.store (i32.const 20) (i32.const 4))
    (i32.store (i32.const 24) (local.get 0))
    (i32.store (i32.const 28) (local.get 1))
    (i32.const 16))
  {items}
  (func (export "describe") (result i32) {describe})
  (func (export "invoke") (param $tp i32) (param $tl i32) (param $ap i32) (param $al i32) (result i32)
    {body}))"#
    )
}

/// As much of WASI as the cases import.
const WASI: &str = "
package keybearer:case;
package wasi:io@0.2.0 {
  interface error { resource error; }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
  }
}
package wasi:cli@0.2.0 {
  interface environment {
    get-environment: func() -> list<tuple<string, string>>;
    get-arguments: func() -> list<string>;
  }
  interface exit { exit: func(status: result); }
  interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
}
package wasi:clocks@0.2.0 {
  interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
}
package wasi:random@0.2.0 {
  interface random { get-random-u64: func() -> u64; }
  interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
}
package wasi:filesystem@0.2.0 {
  interface types { resource descriptor { sync-data: func(); } }
  interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
}
package wasi:sockets@0.2.0 {
  interface tcp-create-socket { create: func(); }
}
world case {
  include keybearer:tool/tool@0.1.0;
  import wasi:cli/environment@0.2.0;
  import wasi:cli/exit@0.2.0;
  import wasi:cli/stdout@0.2.0;
  import wasi:clocks/wall-clock@0.2.0;
  import wasi:random/random@0.2.0;
  import wasi:random/insecure-seed@0.2.0;
  import wasi:filesystem/preopens@0.2.0;
  import wasi:sockets/tcp-create-socket@0.2.0;
}
";

/// Makes a component of a core module in the world of tools, with those parts of WASI that it imports.
pub(crate) fn encode(text: &str) -> Vec<u8> {
    // The memory is the scaffold's unless the case brings one.
    let text = if text.contains("(memory ") {
        text.to_owned()
    } else {
        text.replacen("(global $heap", "(memory (export \"memory\") 2)\n  (global $heap", 1)
    };
    let mut module = wat::parse_str(&text).expect("the guest's text parses");
    let mut resolve = wit_parser::Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    resolve.push_dir(wit).expect("the world parses");
    let package = resolve.push_str("case.wit", WASI).expect("the case's world parses");
    let world = resolve.select_world(&[package], Some("case")).expect("the world is there");
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8)
        .expect("metadata fits");
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .expect("the module fits the world")
        .encode()
        .expect("the component encodes")
}

/// A component written by hand: `items` stand among its own, `exports` after them. The core instance
/// `$i` exports `memory`, `realloc`, `describe`, `invoke`; `$tool` and `$error` are the world's records.
pub(crate) fn by_hand(items: &str, exports: &str) -> Vec<u8> {
    wat::parse_str(by_hand_text(items, exports)).expect("the component's text parses")
}

pub(crate) fn by_hand_text(items: &str, exports: &str) -> String {
    format!(
        r#"(component
  (type $types (instance
    (type $t (record (field "name" string) (field "description" string) (field "input-schema" string)
      (field "output-schema" (option string)) (field "read-only" bool) (field "idempotent" bool)))
    (export "tool" (type (eq $t)))
    (type $e (variant (case "unknown-tool") (case "invalid-arguments" string) (case "upstream" string)
      (case "denied") (case "failed" string)))
    (export "tool-error" (type (eq $e)))))
  (import "keybearer:tool/types@0.1.0" (instance $names (type $types)))
  (alias export $names "tool" (type $tool))
  (alias export $names "tool-error" (type $error))
  (core module $m
    (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
    (func (export "describe") (result i32) (i32.const 512))
    (func (export "invoke") (param i32 i32 i32 i32) (result i32) (i32.const 512)))
  (core instance $i (instantiate $m))
  {items}
  {exports})"#
    )
}

/// The exports that the world asks for.
pub(crate) const EXPORTS: &str = r#"
  (func (export "describe") (result (list $tool))
    (canon lift (core func $i "describe") (memory $i "memory") (realloc (func $i "realloc"))))
  (func (export "invoke") (param "tool" string) (param "arguments" string) (result (result string (error $error)))
    (canon lift (core func $i "invoke") (memory $i "memory") (realloc (func $i "realloc"))))"#;

/// Writes a number as 16 hexadecimal digits to an address: `(call $hex (i64) (i32))`.
pub(crate) const HEX: &str = r#"
  (func $hex (param $number i64) (param $at i32)
    (local $index i32) (local $digit i32)
    (loop $next
      (local.set $digit (i32.wrap_i64 (i64.and (i64.const 15)
        (i64.shr_u (local.get $number) (i64.extend_i32_u (i32.sub (i32.const 60)
          (i32.mul (local.get $index) (i32.const 4))))))))
      (i32.store8 (i32.add (local.get $at) (local.get $index))
        (i32.add (local.get $digit) (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $digit) (i32.const 10)))))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $index) (i32.const 16)))))"#;

/// Echoes its arguments.
pub(crate) fn echo() -> Vec<u8> {
    guest("", "(call $ok (local.get $ap) (local.get $al))")
}

struct Tenant(Arc<TenantRecord>);

impl TenantDirectory for Tenant {
    fn tenant(&self, id: &TenantId) -> Option<Arc<TenantRecord>> {
        (*id == self.0.id).then(|| Arc::clone(&self.0))
    }
}

struct Token(Arc<TokenRecord>);

impl TokenDirectory for Token {
    fn token(&self, id: &TokenId) -> Option<Arc<TokenRecord>> {
        (*id == self.0.id).then(|| Arc::clone(&self.0))
    }
}

/// A permit, by the way that every permit is made.
pub(crate) fn permit(package: Digest) -> Permit {
    let tenant = TenantRecord {
        id: TenantId::random(),
        name: "acme".parse().expect("name"),
        state: TenantState::Active,
        created: UnixMillis(1),
        limits: Limits::default(),
        calls_per_second: 1_000_000,
        concurrent_calls: 1_000_000,
    };
    let life = UnixMillis(1_000)..UnixMillis(2_000);
    let issued = issue_token(tenant.id.clone(), "t".to_owned(), Scopes::of(&[Scope::Call]), None, life);
    let token = Token(Arc::new(issued.record));
    let principal = authenticate_token(&issued.text, &token, UnixMillis(1_500)).expect("authenticates");
    let context = principal.enter(&Tenant(Arc::new(tenant))).expect("enters");
    context.permit("pack.run".parse().expect("tool"), package).expect("permits")
}

/// A reply for a guest.
pub(crate) struct Answer(pub(crate) ReplyParts);

impl GuestReply for Answer {
    fn into_parts(self) -> ReplyParts {
        self.0
    }
}

type Reaction = dyn Fn(GuestRequest, oneshot::Sender<Result<Answer, GuestFault>>) + Send + Sync;

/// An outlet that reacts as the test says, and counts.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) asked: Arc<AtomicU64>,
    react: Arc<Reaction>,
}

impl Door {
    pub(crate) fn new(
        react: impl Fn(GuestRequest, oneshot::Sender<Result<Answer, GuestFault>>) + Send + Sync + 'static,
    ) -> Self {
        Self { asked: Arc::default(), react: Arc::new(react) }
    }

    /// Answers everything with this body.
    pub(crate) fn answering(body: &[u8]) -> Self {
        let body = body.to_vec();
        Self::new(move |_, sender| drop(sender.send(Ok(Answer((200, Vec::new(), body.clone()))))))
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Outlet for Door {
    type Reply = Answer;

    fn send(&self, request: GuestRequest) -> oneshot::Receiver<Result<Answer, GuestFault>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = oneshot::channel();
        (self.react)(request, sender);
        receiver
    }

    type Signature = Signed;

    /// Signs everything, by saying back what it was asked.
    fn sign(&self, asked: GuestSignature) -> oneshot::Receiver<Result<Signed, SigningFault>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = oneshot::channel();
        let made = match asked.what {
            ToSign::Message(message) => [asked.slot.as_bytes(), b":", &message].concat(),
            ToSign::Claims(claims) => format!("{}:{claims:?}", asked.slot).into_bytes(),
            ToSign::Url { method, url, expires_s } => {
                format!("{}:{} {url} {expires_s}", asked.slot, method.as_str()).into_bytes()
            }
        };
        drop(sender.send(Ok(Signed(made))));
        receiver
    }
}

/// What the door signed.
pub(crate) struct Signed(Vec<u8>);

impl keybearer_sandbox::GuestSignature for Signed {
    fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A sandbox and how a call in it is set up.
pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    pub(crate) limits: Limits,
}

pub(crate) fn config(ceilings: Limits, instances: u32) -> SandboxConfig {
    SandboxConfig {
        cache_dir: None,
        cache_key: [7; 32].into(),
        ceilings,
        instances,
        compile: CompileMode::InProcess,
        tick: Duration::from_millis(5),
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default(), 8)
    }

    pub(crate) fn with(ceilings: Limits, instances: u32) -> Self {
        Self { sandbox: Sandbox::new(config(ceilings, instances)).expect("a sandbox"), limits: ceilings }
    }

    pub(crate) async fn load(&self, component: &[u8]) -> Arc<Tool> {
        let digest = Digest::of_package(component, b"");
        self.sandbox.load(&digest, component, &Wasi::default()).await.expect("it loads")
    }

    /// Loads with those parts of WASI.
    pub(crate) async fn load_asking(&self, component: &[u8], wasi: &Wasi) -> Arc<Tool> {
        let manifest = format!("{wasi:?}");
        let digest = Digest::of_package(component, manifest.as_bytes());
        self.sandbox.load(&digest, component, wasi).await.expect("it loads")
    }

    /// Why a component does not load.
    pub(crate) async fn refusal(&self, component: &[u8]) -> String {
        let digest = Digest::of_package(component, b"");
        match self.sandbox.load(&digest, component, &Wasi::default()).await {
            Ok(_) => panic!("it loads"),
            Err(LoadFailed::Refused(refused)) => refused.reason,
            Err(LoadFailed::Host(reason)) => panic!("the host failed: {reason}"),
        }
    }

    pub(crate) fn instance(&self, tool: &Arc<Tool>, door: Door, limits: Limits) -> Instance {
        let setup = CallSetup {
            limits,
            deadline: Instant::now() + Duration::from_millis(limits.wall_ms),
            attempt: 1,
            base_urls: vec![("api".parse().expect("slot"), "https://acme.example.test".to_owned())],
        };
        self.sandbox.instance(permit(*tool.digest()), tool, door, setup)
    }

    pub(crate) async fn call(&self, tool: &Arc<Tool>, arguments: &str) -> Ended {
        self.instance(tool, Door::answering(b"{}"), self.limits).invoke(arguments.to_owned()).await
    }

    /// Loads and calls once.
    pub(crate) async fn run(&self, component: &[u8]) -> Ended {
        let tool = self.load(component).await;
        self.call(&tool, "{}").await
    }
}
