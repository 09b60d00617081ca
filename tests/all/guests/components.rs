//! Components that no compiler makes, written as text: a scaffold that describes one tool, `run`, and
//! whose parts a case replaces.

/// A component in the making. What is not said is what a well-behaved one has.
pub(super) struct Written {
    /// Items of the component before the module: imports, resources, other modules.
    pub(super) before: String,
    /// What the module imports, as items at its beginning.
    pub(super) imports: String,
    /// Where the module's imports come from: arguments of its instantiation.
    pub(super) with: String,
    /// The module's memory.
    pub(super) memory: String,
    /// Further items of the module.
    pub(super) items: String,
    /// The body of `cabi_realloc`, with the size as local 3.
    pub(super) realloc: String,
    /// The body of `describe`: the address of the list.
    pub(super) describe: String,
    /// The body of `invoke`: the address of the result. `$ok` makes one of pointer and length;
    /// `$number` of a number below 10.
    pub(super) run: String,
    /// The exports of the component.
    pub(super) exports: String,
    /// The name of the tool that it describes.
    pub(super) tool: String,
}

const TYPES: &str = r#"
  (type $types (instance
    (type $record (record
      (field "name" string) (field "description" string) (field "input-schema" string)
      (field "output-schema" (option string)) (field "read-only" bool) (field "idempotent" bool)))
    (export "tool" (type (eq $record)))
    (type $variant (variant
      (case "unknown-tool") (case "invalid-arguments" string) (case "upstream" string)
      (case "denied") (case "failed" string)))
    (export "tool-error" (type (eq $variant)))))
  (import "keybearer:tool/types@0.1.0" (instance $named (type $types)))
  (alias export $named "tool" (type $tool))
  (alias export $named "tool-error" (type $tool-error))"#;

pub(super) const DESCRIBE: &str = r#"
  (func (export "describe") (result (list $tool))
    (canon lift (core func $main "describe") (memory $main "memory")))"#;

pub(super) const INVOKE: &str = r#"
  (func (export "invoke") (param "tool" string) (param "arguments" string)
      (result (result string (error $tool-error)))
    (canon lift (core func $main "invoke") (memory $main "memory") (realloc (func $main "cabi_realloc"))))"#;

/// A component that imports `log` and whose module gets it as `log` `write`.
pub(super) const LOG: &str = r#"
  (type $log-types (instance
    (type $levels (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $levels)))
    (export "write" (func (param "level" $level) (param "message" string)))))
  (import "keybearer:tool/log@0.1.0" (instance $log (type $log-types)))
  (core module $memory-module (memory (export "memory") 1))
  (core instance $memory (instantiate $memory-module))
  (core func $write (canon lower (func $log "write") (memory $memory "memory")))"#;

/// A component that imports `call`, and whose texts are put into the main module by its own realloc.
pub(super) const SCHEMA: &str = r#"{"type":"object"}"#;

/// Where the scaffold keeps its texts; below is scratch, above is the case's.
const TEXTS: usize = 512;

impl Default for Written {
    fn default() -> Self {
        Self {
            before: String::new(),
            imports: String::new(),
            with: String::new(),
            memory: "(memory (export \"memory\") 1)".to_owned(),
            items: String::new(),
            realloc: "(local $at i32)
                (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                (global.set $heap (i32.add (local.get $at) (local.get 3)))
                (local.get $at)"
                .to_owned(),
            describe: "(i32.const 16)".to_owned(),
            run: "(call $number (i32.const 1))".to_owned(),
            exports: format!("{DESCRIBE}{INVOKE}"),
            tool: "run".to_owned(),
        }
    }
}

impl Written {
    /// The bytes of the component.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let text = self.text();
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn text(&self) -> String {
        let Self { before, imports, with, memory, items, realloc, describe, run, exports, tool } = self;
        let description = "Written as text.";
        let texts = [tool.as_str(), description, SCHEMA];
        // The record of one tool at 64, and the list of it at 16.
        let mut record = Vec::new();
        let mut at = TEXTS;
        for text in texts {
            record.extend([u32::try_from(at).expect("small"), u32::try_from(text.len()).expect("small")]);
            at += text.len();
        }
        // No output schema; it reads only.
        record.extend([0, 0, 0, 1]);
        let record: String =
            record.into_iter().flat_map(u32::to_le_bytes).map(|byte| format!("\\{byte:02x}")).collect();
        let texts: String = texts.concat().bytes().map(|byte| format!("\\{byte:02x}")).collect();
        format!(
            r#"(component {TYPES} {before}
  (core module $module {imports} {memory}
    (global $heap (mut i32) (i32.const 4096))
    (data (i32.const 16) "\40\00\00\00\01\00\00\00")
    (data (i32.const 64) "{record}")
    (data (i32.const {TEXTS}) "{texts}")
    (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
    (func $ok (param i32 i32) (result i32)
      (i32.store (i32.const 32) (i32.const 0))
      (i32.store (i32.const 36) (local.get 0))
      (i32.store (i32.const 40) (local.get 1))
      (i32.const 32))
    (func $number (param i32) (result i32)
      (i32.store8 (i32.const 48) (i32.add (local.get 0) (i32.const 48)))
      (call $ok (i32.const 48) (i32.const 1)))
    {items}
    (func (export "describe") (result i32) {describe})
    (func (export "invoke") (param $tool i32) (param $tool-length i32) (param $arguments i32)
        (param $arguments-length i32) (result i32) {run}))
  (core instance $main (instantiate $module {with}))
  {exports})"#
        )
    }
}
