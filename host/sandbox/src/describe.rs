//! What a package says of itself, once, at publish: `describe` in a fresh instance that has no way out.
//! Names and schemas are parsed here, so that nothing behind reads raw text of a publisher's making.

use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::Limits;
use keybearer_contract::ToolDescription;
use tokio::time::Instant;
use wasmtime::Engine;
use wasmtime::Store;

use crate::bindings::types;
use crate::instance::store;
use crate::instance::within;
use crate::meter::Meter;
use crate::state::Call;
use crate::state::State;
use crate::stop::Stop;
use crate::stop::classify;
use crate::text::one_line;
use crate::tool::Tool;

/// Time on a processor, and time in all: it only has to write down constants.
const CPU_MS: u64 = 1_000;
const WALL: Duration = Duration::from_secs(5);

/// More operations than a model can choose between.
const TOOLS_MAX: usize = 128;

/// One description or schema; a model reads all of them.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// All of them together, and what is lifted at the most.
const ALL_BYTES_MAX: u64 = 4 << 20;

/// A package does not describe itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescribeFailed {
    /// It was stopped.
    #[error("`describe` did not end: {0}")]
    Stopped(Stop),
    /// What it says is not of the shape that it must have. One escaped sentence.
    #[error("`describe` is refused: {0}")]
    Malformed(String),
    /// It begins with more than its calls may have: each of them would fail.
    #[error(
        "it begins with {begins} {what}, and `{name}` is {limit}: build it with less, or raise `{name}` in its manifest"
    )]
    TooLarge {
        /// What there is too much of, in words.
        what: &'static str,
        /// The field of [`Limits`].
        name: &'static str,
        /// What a fresh instance has.
        begins: u64,
        /// What holds for a call: the least of the manifest's limit and the ceiling.
        limit: u64,
    },
}

impl DescribeFailed {
    fn malformed(reason: impl AsRef<str>) -> Self {
        Self::Malformed(one_line(reason.as_ref(), 512))
    }
}

pub(crate) async fn describe(
    engine: &Engine,
    tool: &Tool,
    ceilings: Limits,
    manifest: &Limits,
) -> Result<Vec<ToolDescription>, DescribeFailed> {
    let of_calls = ceilings.min(*manifest);
    let limits = Limits {
        cpu_ms: ceilings.cpu_ms.min(CPU_MS),
        hostcall_fuel: ceilings.hostcall_fuel.min(ALL_BYTES_MAX),
        ..ceilings
    };
    let deadline = Instant::now() + WALL;
    let meter = Arc::new(Meter::new());
    let call = Call { id: None, deadline, attempt: 1, base_urls: Vec::new() };
    let mut store = store(engine, State::new(tool, limits, None, call, Arc::clone(&meter)));
    let described = within(deadline, &meter, run(tool, &mut store, &of_calls)).await;
    match described {
        None => Err(DescribeFailed::Stopped(Stop::Timeout)),
        Some(Err(error)) => Err(DescribeFailed::Stopped(classify(&error, &limits, store.data().limiter.refused()))),
        Some(Ok(Err(too_large))) => Err(too_large),
        Some(Ok(Ok(tools))) if tools.len() > TOOLS_MAX => {
            Err(DescribeFailed::malformed(format!("it names more than {TOOLS_MAX} tools")))
        }
        Some(Ok(Ok(tools))) => tools.into_iter().map(parse).collect(),
    }
}

type Described = Result<Vec<types::Tool>, DescribeFailed>;

async fn run(tool: &Tool, store: &mut Store<State>, of_calls: &Limits) -> wasmtime::Result<Described> {
    let instance = tool.pre().instantiate_async(&mut *store).await;
    let limiter = &store.data().limiter;
    // What has no room even within the ceilings failed already: it is refused with both numbers, too.
    let begins = if instance.is_ok() { limiter.has() } else { limiter.asked() };
    if let Err(too_large) = begins_within(begins, of_calls) {
        return Ok(Err(too_large));
    }
    Ok(Ok(instance?.call_describe(&mut *store).await?))
}

/// Whether a fresh instance, with all of its memories and tables together, has room within a call's limits.
fn begins_within((memory, table): (u64, u64), of_calls: &Limits) -> Result<(), DescribeFailed> {
    for (what, name, begins, limit) in [
        ("bytes of memory", "memory_bytes", memory, of_calls.memory_bytes),
        ("elements of tables", "table_elements", table, of_calls.table_elements),
    ] {
        if begins > limit {
            return Err(DescribeFailed::TooLarge { what, name, begins, limit });
        }
    }
    Ok(())
}

fn parse(tool: types::Tool) -> Result<ToolDescription, DescribeFailed> {
    let name = tool
        .name
        .parse()
        .map_err(|error| DescribeFailed::malformed(format!("tool `{}`: {error}", one_line(&tool.name, 64))))?;
    if tool.description.len() > TEXT_BYTES_MAX {
        let longest = format!("tool `{name}`: its description is longer than {TEXT_BYTES_MAX} bytes");
        return Err(DescribeFailed::malformed(longest));
    }
    Ok(ToolDescription {
        input_schema: schema(&name, "input schema", &tool.input_schema)?,
        output_schema: tool.output_schema.map(|text| schema(&name, "output schema", &text)).transpose()?,
        name,
        description: tool.description,
        read_only: tool.read_only,
        idempotent: tool.idempotent,
    })
}

/// Parses a schema. serde_json itself refuses to nest deeper than 128 (threats G18).
fn schema(name: &keybearer_contract::ToolName, what: &str, text: &str) -> Result<serde_json::Value, DescribeFailed> {
    let refuse = |why: &str| DescribeFailed::malformed(format!("tool `{name}`: its {what} {why}"));
    if text.len() > TEXT_BYTES_MAX {
        return Err(refuse(&format!("is longer than {TEXT_BYTES_MAX} bytes")));
    }
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| refuse(&format!("does not parse: {error}")))?;
    if !value.is_object() {
        return Err(refuse("is not a JSON object"));
    }
    Ok(value)
}
