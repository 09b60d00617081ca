//! The world `keybearer:tool`, as wit-bindgen writes it. Not for tools: `http`, `log` and `call` say
//! the same in types that exist natively too.

wit_bindgen::generate!({
    path: "../wit",
    world: "tool",
    pub_export_macro: true,
    export_macro_name: "__export_world",
    default_bindings_module: "keybearer_guest::bindings",
});
