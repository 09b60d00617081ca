//! Write a Keybearer tool: a typed function, an attribute, and a small HTTP client.
//!
//! ```
//! use keybearer_guest::prelude::*;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Args {
//!     /// The text to give back.
//!     text: String,
//! }
//!
//! #[derive(Serialize, JsonSchema)]
//! struct Out {
//!     /// The same text.
//!     text: String,
//! }
//!
//! /// Gives a text back as it came.
//! #[tool(read_only)]
//! fn echo(args: Args) -> Result<Out, ToolError> {
//!     Ok(Out { text: args.text })
//! }
//!
//! keybearer_guest::export!(echo);
//! # fn main() {}
//! ```
//!
//! A tool sends plain requests to the real URL of its upstream. It never holds a credential: its
//! manifest declares the slot, the tenant grants it, and the host puts it on the request on the way
//! out. On wasm32 the functions here are the imports of the world `keybearer:tool`; everywhere else
//! [`mock`] stands in for the host, so that a tool's unit tests run with `cargo test`.
//!
//! Not for anything that the world does not offer: there is no clock, no environment, no file.

pub mod call;
pub mod encode;
mod error;
pub mod http;
pub mod log;
pub mod signing;
mod tool;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod component;
#[cfg(not(target_arch = "wasm32"))]
pub mod mock;

#[cfg(target_arch = "wasm32")]
use component as host;
#[cfg(not(target_arch = "wasm32"))]
use mock as host;

// The public interface is:
pub use error::ToolError;
pub use keybearer_guest_macros::tool;
pub use schemars;
pub use serde;
pub use serde_json;
pub use tool::Description;
pub use tool::Entry;
pub use tool::Package;
pub use tool::Tool;

/// What a tool usually needs, in one `use`.
pub mod prelude {
    pub use schemars::JsonSchema;
    pub use serde::Deserialize;
    pub use serde::Serialize;
    pub use serde_json::Value;
    pub use serde_json::json;

    pub use crate::ToolError;
    pub use crate::call;
    pub use crate::http;
    pub use crate::log;
    pub use crate::signing;
    pub use crate::tool;
}

/// For the code that the macros write; not part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::tool::NoArguments;
    pub use crate::tool::describe;
    pub use crate::tool::invoke;
}

/// Makes a component of the named tools; stands once, at the root of the crate.
///
/// It also defines `PACKAGE`, a [`Package`], by which a unit test can describe and invoke the tools
/// as the host does, JSON in and JSON out.
#[macro_export]
macro_rules! export {
    ($($tool:path),+ $(,)?) => {
        /// The tools of this package.
        pub static PACKAGE: $crate::Package = $crate::Package::new(&[$($crate::Entry::of::<$tool>()),+]);

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exports;

            impl $crate::bindings::Guest for Exports {
                fn describe() -> ::std::vec::Vec<$crate::bindings::Tool> {
                    $crate::component::describe(&PACKAGE)
                }

                fn invoke(
                    tool: ::std::string::String,
                    arguments: ::std::string::String,
                ) -> ::core::result::Result<::std::string::String, $crate::bindings::ToolError> {
                    $crate::component::invoke(&PACKAGE, &tool, &arguments)
                }
            }

            $crate::bindings::__export_world!(Exports with_types_in $crate::bindings);
        };
    };
}
