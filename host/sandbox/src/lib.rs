//! The only room that knows wasmtime: compile, cache, fresh instance, limits.
