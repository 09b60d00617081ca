//! Why a call has no result, by the party at fault. What wasmtime reports becomes one of these here;
//! no text of a guest's making goes further than a bounded, escaped line (threats G19).

use crate::bindings::types::ToolError;
use crate::state::Refused;
use crate::text::one_line;

/// The longest text of a guest's or wasmtime's making that is kept: enough to act on.
const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The guest says: there is no such tool in this package.
    #[error("the package has no such tool")]
    UnknownTool,
    /// The guest says: the arguments do not fit. One escaped line.
    #[error("invalid arguments: {0}")]
    InvalidArguments(String),
    /// The guest says: the upstream refused or failed. One escaped line.
    #[error("upstream: {0}")]
    Upstream(String),
    /// The guest says: the host refused a request of its.
    #[error("a request was denied")]
    Denied,
    /// The guest says: the tool failed. One escaped line.
    #[error("the tool failed: {0}")]
    Failed(String),
    /// The guest broke off.
    #[error("the tool trapped: {}: {message}", .kind.as_str())]
    Trap {
        /// Which kind.
        kind: TrapKind,
        /// One escaped line.
        message: String,
    },
    /// The guest asked for more than the call may use.
    #[error("the tool reached its limit `{name}` of {value}")]
    Limit {
        /// The field of [`keybearer_contract::Limits`].
        name: &'static str,
        /// What held.
        value: u64,
    },
    /// The deadline passed.
    #[error("the call reached its deadline")]
    Timeout,
    /// No room for one more instance: try again later.
    #[error("no instance is free")]
    Overloaded,
    /// The host is at fault.
    #[error("the host failed")]
    Internal,
}

/// Which kind of trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrapKind {
    /// It said so itself: a panic, an abort.
    Unreachable,
    /// It recursed too deeply.
    StackOverflow,
    /// It reached outside of its memory or table, or handed over what lies outside of it.
    OutOfBounds,
    /// Division by zero, overflow, a conversion without result.
    Arithmetic,
    /// It broke the rules of the component model, or handed over what its types do not allow.
    Contract,
    /// It called a part of WASI that it has not asked for, or it left by `exit`.
    NotGranted,
    /// Anything else.
    Other,
}

impl TrapKind {
    /// A stable word for records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::StackOverflow => "stack_overflow",
            Self::OutOfBounds => "out_of_bounds",
            Self::Arithmetic => "arithmetic",
            Self::Contract => "contract",
            Self::NotGranted => "not_granted",
            Self::Other => "other",
        }
    }

    fn of(trap: wasmtime::Trap) -> Self {
        use wasmtime::Trap;
        match trap {
            Trap::UnreachableCodeReached => Self::Unreachable,
            Trap::StackOverflow => Self::StackOverflow,
            Trap::MemoryOutOfBounds
            | Trap::TableOutOfBounds
            | Trap::IndirectCallToNull
            | Trap::StringOutOfBounds
            | Trap::ListOutOfBounds => Self::OutOfBounds,
            Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger => Self::Arithmetic,
            Trap::CannotEnterComponent
            | Trap::CannotLeaveComponent
            | Trap::InvalidChar
            | Trap::InvalidDiscriminant
            | Trap::UnalignedPointer => Self::Contract,
            _ => Self::Other,
        }
    }
}

impl From<ToolError> for Stop {
    fn from(error: ToolError) -> Self {
        match error {
            ToolError::UnknownTool => Self::UnknownTool,
            ToolError::InvalidArguments(text) => Self::InvalidArguments(one_line(&text, MESSAGE_BYTES_MAX)),
            ToolError::Upstream(text) => Self::Upstream(one_line(&text, MESSAGE_BYTES_MAX)),
            ToolError::Denied => Self::Denied,
            ToolError::Failed(text) => Self::Failed(one_line(&text, MESSAGE_BYTES_MAX)),
        }
    }
}

/// What this room's own host functions stop a guest with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Halt {
    #[error("limit {name}")]
    Limit { name: &'static str, value: u64 },
    #[error("{0} is not granted")]
    NotGranted(&'static str),
}

/// What wasmtime says when lifting costs more than it was given. Its type is private; the text is
/// pinned by a test.
const HOSTCALL_FUEL_TEXT: &str = "fuel allocated for hostcalls has been exhausted";

/// What wasmtime says when one handle too many is made; as above.
const HANDLES_TEXT: &str = "store handle limit exceeded";

/// Turns wasmtime's report into ours. `refused` says what the limiter refused before: a guest that was
/// refused memory says `unreachable` next, and its author is helped by the cause.
pub(crate) fn classify(error: &wasmtime::Error, limits: &keybearer_contract::Limits, refused: Refused) -> Stop {
    if let Some(halt) = error.downcast_ref::<Halt>() {
        return match halt {
            Halt::Limit { name, value } => Stop::Limit { name, value: *value },
            Halt::NotGranted(_) => Stop::Trap { kind: TrapKind::NotGranted, message: halt.to_string() },
        };
    }
    if error.downcast_ref::<wasmtime_wasi::I32Exit>().is_some() {
        return Stop::Trap { kind: TrapKind::NotGranted, message: "it left by `exit`".to_owned() };
    }
    if matches!(error.downcast_ref(), Some(wasmtime_wasi::ResourceTableError::Full)) {
        return Stop::Limit { name: "handles", value: limits.handles };
    }
    if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
        return Stop::Overloaded;
    }
    let trap = error.downcast_ref::<wasmtime::Trap>().copied();
    if matches!(trap, None | Some(wasmtime::Trap::UnreachableCodeReached)) {
        match refused {
            Refused::Nothing => {}
            Refused::Memory => return Stop::Limit { name: "memory_bytes", value: limits.memory_bytes },
            Refused::Table => return Stop::Limit { name: "table_elements", value: limits.table_elements },
        }
    }
    // Without the chain: wasmtime's contexts are addresses within the component.
    let text = error.root_cause().to_string();
    if text.contains(HOSTCALL_FUEL_TEXT) {
        return Stop::Limit { name: "hostcall_fuel", value: limits.hostcall_fuel };
    }
    if text.contains(HANDLES_TEXT) {
        return Stop::Limit { name: "handles", value: limits.handles };
    }
    let kind = match trap {
        Some(trap) => TrapKind::of(trap),
        // What is found while lifting has a text and no code.
        None if text.contains("out of bounds") => TrapKind::OutOfBounds,
        None => TrapKind::Contract,
    };
    Stop::Trap { kind, message: one_line(&text, MESSAGE_BYTES_MAX) }
}
