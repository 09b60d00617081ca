//! What a call may use. The operator sets ceilings, a tenant and a tool may ask for less; what holds
//! is the least of the three, field by field (P5).

use serde::Deserialize;
use serde::Serialize;

/// Limits of one call. Every field has its unit in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From admission to answer, time in host calls included.
    pub wall_ms: u64,
    /// Time on a processor, counted in epoch ticks of the sandbox.
    pub cpu_ms: u64,
    /// Linear memory, all memories together.
    pub memory_bytes: u64,
    /// Elements of all tables together.
    pub table_elements: u64,
    /// Handles of component resources alive at once.
    pub handles: u64,
    /// Fuel for lifting what a guest hands to the host: about one unit a byte.
    pub hostcall_fuel: u64,
    /// Arguments, as JSON text.
    pub arguments_bytes: u64,
    /// Result, as JSON text.
    pub result_bytes: u64,
    /// Log lines, all together.
    pub log_bytes: u64,
    /// Outbound requests.
    pub requests: u64,
    /// Outbound requests at the same time.
    pub parallel_requests: u64,
    /// One request's body.
    pub request_bytes: u64,
    /// One answer's body, decoded.
    pub response_bytes: u64,
    /// All bodies of all requests and answers.
    pub total_bytes: u64,
}

impl Default for Limits {
    /// Ceilings that suit an API client: what the shipped tools need, several times over.
    fn default() -> Self {
        Self {
            wall_ms: 30_000,
            cpu_ms: 5_000,
            memory_bytes: 64 << 20,
            table_elements: 20_000,
            handles: 1_000,
            // wasmtime's own default is 128 MiB; a call never has more than its bodies to lift.
            hostcall_fuel: 64 << 20,
            arguments_bytes: 1 << 20,
            result_bytes: 4 << 20,
            log_bytes: 64 << 10,
            requests: 32,
            parallel_requests: 8,
            request_bytes: 4 << 20,
            response_bytes: 8 << 20,
            total_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// The least of both, field by field.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            wall_ms: self.wall_ms.min(other.wall_ms),
            cpu_ms: self.cpu_ms.min(other.cpu_ms),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            table_elements: self.table_elements.min(other.table_elements),
            handles: self.handles.min(other.handles),
            hostcall_fuel: self.hostcall_fuel.min(other.hostcall_fuel),
            arguments_bytes: self.arguments_bytes.min(other.arguments_bytes),
            result_bytes: self.result_bytes.min(other.result_bytes),
            log_bytes: self.log_bytes.min(other.log_bytes),
            requests: self.requests.min(other.requests),
            parallel_requests: self.parallel_requests.min(other.parallel_requests),
            request_bytes: self.request_bytes.min(other.request_bytes),
            response_bytes: self.response_bytes.min(other.response_bytes),
            total_bytes: self.total_bytes.min(other.total_bytes),
        }
    }
}
