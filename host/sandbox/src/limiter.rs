//! Memory and tables of one store, counted together: many small memories are as much as one large
//! one (threats G04, G05). Growth that was allowed here and then failed stays counted: wasmtime does
//! not say reliably which growth it is that failed, and a guest loses nothing else by it.

use keybearer_contract::Limits;
use wasmtime::ResourceLimiter;

/// What was refused last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Nothing,
    Memory,
    Table,
}

/// What one store has and may have.
pub(crate) struct Limiter {
    memory_max: usize,
    memory: usize,
    memory_peak: usize,
    memory_asked: usize,
    table_max: usize,
    table: usize,
    table_asked: usize,
    refused: Refused,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Self {
            memory_max: size(limits.memory_bytes),
            memory: 0,
            memory_peak: 0,
            memory_asked: 0,
            table_max: size(limits.table_elements),
            table: 0,
            table_asked: 0,
            refused: Refused::Nothing,
        }
    }

    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory_peak as u64
    }

    /// Bytes of memory and elements of tables that the store has.
    pub(crate) fn has(&self) -> (u64, u64) {
        (self.memory as u64, self.table as u64)
    }

    /// The most of both that was asked for, whether it was given or not.
    pub(crate) fn asked(&self) -> (u64, u64) {
        (self.memory_asked as u64, self.table_asked as u64)
    }

    pub(crate) fn refused(&self) -> Refused {
        self.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, wasmtime::Error> {
        if current != 0 && maximum.is_some_and(|maximum| desired > maximum) {
            // Beyond what the module itself declares: an answer of the guest's own making.
            return Ok(false);
        }
        let more = desired.saturating_sub(current);
        let total = self.memory.saturating_add(more);
        self.memory_asked = self.memory_asked.max(total);
        if total > self.memory_max {
            self.refused = Refused::Memory;
            return Ok(false);
        }
        self.memory = total;
        self.memory_peak = self.memory_peak.max(total);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, wasmtime::Error> {
        if current != 0 && maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current);
        let total = self.table.saturating_add(more);
        self.table_asked = self.table_asked.max(total);
        if total > self.table_max {
            self.refused = Refused::Table;
            return Ok(false);
        }
        self.table = total;
        Ok(true)
    }
}
