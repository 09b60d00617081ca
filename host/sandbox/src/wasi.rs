//! WASI preview 2, as little of it as a component asks for. What a standard library drags in whether it
//! is used or not is linked as stubs: no environment, no arguments, silent stdio, no folder, a constant
//! seed. Clocks, random bytes and stdio that is heard are linked only where the manifest asks; sockets
//! and HTTP never are (threats G16, G22, W06).

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use keybearer_contract::Wasi;
use parking_lot::Mutex;
use wasmtime::component::Component;
use wasmtime::component::HasData;
use wasmtime::component::Linker;
use wasmtime::component::ResourceType;
use wasmtime::component::types::ComponentItem;
use wasmtime_wasi::HostMonotonicClock;
use wasmtime_wasi::HostWallClock;
use wasmtime_wasi::ResourceTable;
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::WasiCtxView;
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::WasiCli;
use wasmtime_wasi::cli::WasiCliView;
use wasmtime_wasi::clocks::WasiClocks;
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::bindings;
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::random::WasiRandomView;

use crate::lines::Lines;
use crate::log::LogBook;
use crate::log::LogLevel;
use crate::state::State;
use crate::stop::Halt;

/// Linked for everyone who imports them: there is nothing behind them.
const HARMLESS: [&str; 14] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure-seed",
];

/// May be imported, as Rust's library does for what it might need; to call it without having asked
/// stops the guest. There is one exception: the list of preopened folders is empty.
const TRAPPING: [&str; 4] =
    ["wasi:clocks/monotonic-clock", "wasi:clocks/wall-clock", "wasi:filesystem/types", "wasi:filesystem/preopens"];

const CLOCKS: [&str; 2] = ["wasi:clocks/monotonic-clock", "wasi:clocks/wall-clock"];
const RANDOM: [&str; 2] = ["wasi:random/random", "wasi:random/insecure"];

/// The resources that are the trapping interfaces' own. None ever exists.
const FILE_RESOURCES: [&str; 2] = ["descriptor", "directory-entry-stream"];

/// The preview that is linked; its patch versions are compatible by their own rules.
const VERSION: &str = "0.2.";

/// What one call of `get-random-bytes` may ask for: keys and nonces, many times over.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// Decides whether an interface outside of the world may be imported.
///
/// # Errors
/// The reason, as a sentence.
pub(crate) fn admit(import: &str, asked: &Wasi) -> Result<(), String> {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    if !version.starts_with(VERSION) {
        return Err(format!("it imports `{import}`, which is not part of its world or of WASI 0.2"));
    }
    if HARMLESS.contains(&name) || TRAPPING.contains(&name) {
        return Ok(());
    }
    if RANDOM.contains(&name) {
        return if asked.random {
            Ok(())
        } else {
            Err(format!("it imports `{name}`, and its manifest does not ask for `wasi.random`"))
        };
    }
    if name.starts_with("wasi:sockets/") || name.starts_with("wasi:http/") {
        return Err(format!("it imports `{name}`: the only way out is `keybearer:tool/http`"));
    }
    Err(format!("it imports `{name}`, which is not offered here"))
}

/// What one instance has of WASI.
pub(crate) struct WasiParts {
    context: WasiCtx,
    table: ResourceTable,
}

impl WasiParts {
    pub(crate) fn new(asked: &Wasi, handles_max: u64, log: &Arc<Mutex<LogBook>>) -> Self {
        let mut builder = WasiCtx::builder();
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).max_random_size(RANDOM_BYTES_MAX);
        if !asked.random {
            // The only entropy that could otherwise be had without asking.
            builder.insecure_random_seed(0);
        }
        if asked.clocks {
            builder.wall_clock(Wall).monotonic_clock(Monotonic(Instant::now()));
        }
        if asked.stdio {
            builder.stdout(Lines::new(log, LogLevel::Info)).stderr(Lines::new(log, LogLevel::Warn));
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(usize::try_from(handles_max).unwrap_or(usize::MAX));
        Self { context: builder.build(), table }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let parts = self.wasi.as_mut().expect("WASI is linked only to tools whose state has it");
        WasiCtxView { ctx: &mut parts.context, table: &mut parts.table }
    }
}

/// The resources alone, for the interfaces that need nothing else.
struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Links what `component` imports of WASI, which was admitted before.
///
/// # Errors
/// wasmtime's own, if the component's idea of an interface is not WASI's.
pub(crate) fn link(linker: &mut Linker<State>, component: &Component, asked: &Wasi) -> wasmtime::Result<()> {
    use bindings::cli;
    use bindings::io;
    let table: fn(&mut State) -> &mut ResourceTable = |state| state.ctx().table;
    io::error::add_to_linker::<State, Table>(linker, table)?;
    io::poll::add_to_linker::<State, Table>(linker, table)?;
    io::streams::add_to_linker::<State, Table>(linker, table)?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    bindings::random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, State::random)?;
    if asked.random {
        bindings::random::random::add_to_linker::<State, WasiRandom>(linker, State::random)?;
        bindings::random::insecure::add_to_linker::<State, WasiRandom>(linker, State::random)?;
    }
    if asked.clocks {
        bindings::clocks::wall_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
        bindings::clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
    }
    link_traps(linker, component, asked)
}

/// Defines what may be imported and not be called.
fn link_traps(linker: &mut Linker<State>, component: &Component, asked: &Wasi) -> wasmtime::Result<()> {
    let engine = component.engine();
    for (import, item) in component.component_type().imports(engine) {
        let name = import.split_once('@').map_or(import, |(name, _)| name);
        let Some(stub) = TRAPPING.into_iter().find(|stub| *stub == name) else { continue };
        if asked.clocks && CLOCKS.contains(&stub) {
            continue;
        }
        let ComponentItem::ComponentInstance(interface) = item.ty else { continue };
        let mut instance = linker.instance(import)?;
        for (export, item) in interface.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) if export == "get-directories" => {
                    instance.func_new(export, |_, _, _, results| {
                        results[0] = wasmtime::component::Val::List(Vec::new());
                        Ok(())
                    })?;
                }
                ComponentItem::ComponentFunc(_) => {
                    instance.func_new(export, move |_, _, _, _| Err(Halt::NotGranted(stub).into()))?;
                }
                // The others are `wasi:io`'s, seen through a `use`.
                ComponentItem::Resource(_) if FILE_RESOURCES.contains(&export) => {
                    instance.resource(export, ResourceType::host::<Table>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The finest that a guest sees of time (threats G22).
const RESOLUTION: Duration = Duration::from_millis(1);

struct Wall;

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn now(&self) -> Duration {
        quantise(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// Counts from the instance's beginning: how long the host has been up is none of its business.
struct Monotonic(Instant);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        nanoseconds(RESOLUTION)
    }

    fn now(&self) -> u64 {
        nanoseconds(quantise(self.0.elapsed()))
    }
}

fn quantise(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w06_what_is_not_asked_for_is_not_admitted() {
        let nothing = Wasi::default();
        let random = Wasi { random: true, ..Wasi::default() };
        for (import, asked, fits) in [
            ("wasi:cli/environment@0.2.6", &nothing, true),
            ("wasi:cli/environment@0.3.0", &nothing, false),
            ("wasi:cli/environment", &nothing, false),
            ("wasi:cli/run@0.2.0", &nothing, false),
            ("wasi:filesystem/types@0.2.6", &nothing, true),
            ("wasi:random/random@0.2.6", &nothing, false),
            ("wasi:random/random@0.2.6", &random, true),
            ("wasi:sockets/tcp@0.2.0", &random, false),
            ("wasi:sockets/network@0.2.0", &random, false),
            ("wasi:http/outgoing-handler@0.2.0", &random, false),
            ("keybearer:tool/http@0.2.0", &nothing, false),
            ("env", &nothing, false),
        ] {
            assert_eq!(admit(import, asked).is_ok(), fits, "{import}");
        }
    }

    #[test]
    fn g22_clocks_tell_whole_milliseconds() {
        assert_eq!(quantise(Duration::from_nanos(1_999_999)), Duration::from_millis(1));
        assert_eq!(Wall.now().subsec_nanos() % 1_000_000, 0);
        assert_eq!(Monotonic(Instant::now()).now() % 1_000_000, 0);
    }
}
