//! The only room that knows wasmtime: compile, cache, fresh instance, limits.
//!
//! A package's component becomes a [`Tool`]; a permit and a tool become an [`Instance`], which runs one
//! call and is gone. The guest's one way out is the [`Outlet`], which this room defines and does not
//! implement. Not for policy, credentials or the wire: a request that leaves by the outlet is unchecked
//! but for its number and its size.

mod bindings;
mod cache;
mod child;
mod confine;
mod describe;
mod engine;
mod frame;
mod inspect;
mod instance;
mod limiter;
mod lines;
mod load;
mod log;
mod meter;
mod outlet;
mod precompiled;
mod refused;
mod sandbox;
mod shelf;
mod signing;
mod state;
mod stop;
mod text;
mod tool;
mod wasi;

// The public interface is:
pub use child::compile_child_main;
pub use describe::DescribeFailed;
pub use instance::CallSetup;
pub use instance::Ended;
pub use instance::Instance;
pub use load::CompileMode;
pub use log::LogLevel;
pub use log::LogLine;
pub use outlet::GuestFault;
pub use outlet::GuestMistake;
pub use outlet::GuestReply;
pub use outlet::GuestSignature;
pub use outlet::Outlet;
pub use outlet::ReplyParts;
pub use outlet::SigningFault;
pub use outlet::UpstreamReason;
pub use refused::ComponentRefused;
pub use refused::LoadFailed;
pub use sandbox::Sandbox;
pub use sandbox::SandboxConfig;
pub use sandbox::SetupFailed;
pub use stop::Stop;
pub use stop::TrapKind;
pub use tool::Tool;
