//! The guest's world as Rust types, generated from `wit/world.wit`. Nothing is written by hand here,
//! and nothing of it leaves the room: the public names are in `outlet`, `stop` and `instance`.

#![expect(clippy::error_impl_error, reason = "the world has an `error` of its own")]

wasmtime::component::bindgen!({
    path: "../../wit",
    // The world itself, under a name that its own record `tool` does not also have.
    inline: "
        package keybearer:sandbox;
        world guest { include keybearer:tool/tool@0.1.0; }
    ",
    world: "keybearer:sandbox/guest",
    imports: {
        "keybearer:tool/http": async | trappable,
        "keybearer:tool/signing": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    require_store_data_send: true,
});

pub(crate) use keybearer::tool::call;
pub(crate) use keybearer::tool::http;
pub(crate) use keybearer::tool::log;
pub(crate) use keybearer::tool::signing;
pub(crate) use keybearer::tool::types;
