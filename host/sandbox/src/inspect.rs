//! A component looked over before anything is compiled: flat, without recursion and without trusting a
//! count, so that the server itself can do it. What it lets pass is small enough to be compiled and
//! imports nothing that is not on the list. Whether the component is valid at all is for the compiler
//! to say, which may run in a child (threats W01, W03, W06, W07, W08).

use keybearer_contract::Limits;
use keybearer_contract::Wasi;
use wasmparser::BinaryReader;
use wasmparser::ComponentAlias;
use wasmparser::ComponentExternName;
use wasmparser::ComponentExternalKind;
use wasmparser::ComponentImport;
use wasmparser::ComponentType;
use wasmparser::ComponentTypeRef;
use wasmparser::CoreType;
use wasmparser::Encoding;
use wasmparser::Parser;
use wasmparser::Payload;

use crate::refused::ComponentRefused;
use crate::wasi;

/// A whole Python interpreter fits.
pub(crate) const COMPONENT_BYTES_MAX: usize = 48 << 20;

/// Components within components: wit-component makes 2, compositions a few more.
const NESTING_MAX: usize = 16;

/// Component and instance types within one another.
const TYPE_NESTING_MAX: usize = 16;

/// The compiler's work grows with the longest function faster than with its length.
const FUNCTION_BYTES_MAX: usize = 1 << 20;
const FUNCTION_LOCALS_MAX: u64 = 10_000;

/// Of each kind, in all modules and components together.
const MODULES_MAX: u64 = 64;
const FUNCTIONS_MAX: u64 = 100_000;
const TYPES_MAX: u64 = 20_000;
const IMPORTS_MAX: u64 = 10_000;
const EXPORTS_MAX: u64 = 20_000;
const GLOBALS_MAX: u64 = 20_000;
const SEGMENTS_MAX: u64 = 20_000;
const INSTANCES_MAX: u64 = 1_000;

/// The world's own interfaces, exactly in the version that this host speaks.
const OWN: [&str; 5] = [
    "keybearer:tool/http@0.1.0",
    "keybearer:tool/signing@0.1.0",
    "keybearer:tool/log@0.1.0",
    "keybearer:tool/call@0.1.0",
    "keybearer:tool/types@0.1.0",
];

/// What their names begin with.
const OWN_PACKAGE: &str = "keybearer:tool/";

/// What every component begins with; compiled code is an ELF file instead.
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// What was learnt about a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// It imports some part of WASI, if only its stubs.
    pub(crate) imports_wasi: bool,
}

/// Looks a component over.
///
/// # Errors
/// [`ComponentRefused`], with the rule that it breaks.
pub(crate) fn inspect(bytes: &[u8], asked: &Wasi, ceilings: &Limits) -> Result<Inspected, ComponentRefused> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        return refuse(format!("it is larger than {COMPONENT_BYTES_MAX} bytes"));
    }
    if bytes.starts_with(ELF_MAGIC) {
        return refuse("it is compiled code: publish the component itself");
    }
    if asked.scratch_bytes > 0 {
        return refuse("scratch folders are not offered: leave `wasi.scratch_bytes` at 0");
    }
    let mut look =
        Look { bytes, asked, ceilings, counts: Counts::default(), depth: 0, imports_wasi: false, exports: 0 };
    for payload in Parser::new(0).parse_all(bytes) {
        look.at(payload.map_err(|error| malformed(&error))?)?;
    }
    if look.exports != 2 {
        return refuse("it must export `describe` and `invoke`, and nothing else");
    }
    Ok(Inspected { imports_wasi: look.imports_wasi })
}

fn refuse<T>(reason: impl AsRef<str>) -> Result<T, ComponentRefused> {
    Err(ComponentRefused::new(reason))
}

fn malformed(error: &wasmparser::BinaryReaderError) -> ComponentRefused {
    ComponentRefused::new(format!("it does not parse: {error}"))
}

/// Where the look is, and what it has counted.
struct Look<'a> {
    bytes: &'a [u8],
    asked: &'a Wasi,
    ceilings: &'a Limits,
    counts: Counts,
    /// Components and modules that are open.
    depth: usize,
    imports_wasi: bool,
    exports: u32,
}

#[derive(Default)]
struct Counts {
    modules: u64,
    functions: u64,
    types: u64,
    imports: u64,
    exports: u64,
    globals: u64,
    segments: u64,
    instances: u64,
}

impl Look<'_> {
    fn at(&mut self, payload: Payload<'_>) -> Result<(), ComponentRefused> {
        match payload {
            Payload::Version { encoding, .. } => self.open(encoding),
            Payload::End(_) => {
                self.depth -= 1;
                Ok(())
            }
            Payload::ComponentImportSection(reader) => {
                count(&mut self.counts.imports, reader.count(), IMPORTS_MAX, "imports")?;
                // What a component within imports is given by the one around it.
                if self.depth == 1 {
                    for import in reader {
                        self.import(&import.map_err(|error| malformed(&error))?)?;
                    }
                }
                Ok(())
            }
            Payload::ComponentExportSection(reader) => {
                count(&mut self.counts.exports, reader.count(), EXPORTS_MAX, "exports")?;
                if self.depth == 1 {
                    for export in reader {
                        let export = export.map_err(|error| malformed(&error))?;
                        self.export(export.name.name, export.kind)?;
                    }
                }
                Ok(())
            }
            Payload::ComponentTypeSection(reader) => {
                let range = reader.range();
                let mut reader = BinaryReader::new(&self.bytes[range.clone()], range.start);
                self.component_types(&mut reader).map_err(Walk::into_refused)
            }
            payload => self.sizes(payload),
        }
    }

    /// Everything of which only the number or the size matters.
    fn sizes(&mut self, payload: Payload<'_>) -> Result<(), ComponentRefused> {
        let counts = &mut self.counts;
        match payload {
            Payload::CoreTypeSection(reader) => count(&mut counts.types, reader.count(), TYPES_MAX, "types"),
            Payload::TypeSection(reader) => count(&mut counts.types, reader.count(), TYPES_MAX, "types"),
            Payload::ImportSection(reader) => count(&mut counts.imports, reader.count(), IMPORTS_MAX, "imports"),
            Payload::ExportSection(reader) => count(&mut counts.exports, reader.count(), EXPORTS_MAX, "exports"),
            Payload::GlobalSection(reader) => count(&mut counts.globals, reader.count(), GLOBALS_MAX, "globals"),
            Payload::ElementSection(reader) => count(&mut counts.segments, reader.count(), SEGMENTS_MAX, "segments"),
            Payload::DataSection(reader) => count(&mut counts.segments, reader.count(), SEGMENTS_MAX, "segments"),
            Payload::FunctionSection(reader) => {
                count(&mut counts.functions, reader.count(), FUNCTIONS_MAX, "functions")
            }
            Payload::ComponentCanonicalSection(reader) => {
                count(&mut counts.functions, reader.count(), FUNCTIONS_MAX, "functions")
            }
            Payload::ComponentAliasSection(reader) => {
                count(&mut counts.imports, reader.count(), IMPORTS_MAX, "aliases")
            }
            Payload::InstanceSection(reader) => {
                count(&mut counts.instances, reader.count(), INSTANCES_MAX, "instances")
            }
            Payload::ComponentInstanceSection(reader) => {
                count(&mut counts.instances, reader.count(), INSTANCES_MAX, "instances")
            }
            Payload::MemorySection(reader) => self.memories(reader),
            Payload::TableSection(reader) => self.tables(reader),
            Payload::CodeSectionEntry(body) => function(&body),
            Payload::TagSection(_) => refuse("it uses exceptions, which are off here"),
            Payload::ComponentStartSection { .. } => refuse("it has a start function of its own as a component"),
            _ => Ok(()),
        }
    }

    fn open(&mut self, encoding: Encoding) -> Result<(), ComponentRefused> {
        if self.depth == 0 && encoding == Encoding::Module {
            return refuse("it is a core module: make a component of it");
        }
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return refuse(format!("it nests components deeper than {NESTING_MAX}"));
        }
        count(&mut self.counts.modules, 1, MODULES_MAX, "modules")
    }

    fn import(&mut self, import: &ComponentImport<'_>) -> Result<(), ComponentRefused> {
        let name = import.name.name;
        if !matches!(import.ty, ComponentTypeRef::Instance(_) | ComponentTypeRef::Type(_)) {
            return refuse(format!("it imports `{name}`, which is not an interface of its world"));
        }
        if OWN.contains(&name) {
            return Ok(());
        }
        if !name.contains(':') && matches!(import.ty, ComponentTypeRef::Type(_)) {
            // `use types.{tool}` in the world: a name for a type, not a thing.
            return Ok(());
        }
        if let Some((interface, found)) = name.strip_prefix(OWN_PACKAGE).and_then(|rest| rest.split_once('@'))
            && OWN.iter().any(|own| own[OWN_PACKAGE.len()..].split('@').next() == Some(interface))
        {
            let wanted = OWN[0].split('@').next_back().unwrap_or_default();
            return refuse(format!(
                "it imports `{name}`: it is made for version {found} of `keybearer:tool`, and this host speaks {wanted}; \
                 build it with the guest SDK of {wanted}"
            ));
        }
        self.imports_wasi = true;
        wasi::admit(name, self.asked).map_err(ComponentRefused::new)
    }

    fn export(&mut self, name: &str, kind: ComponentExternalKind) -> Result<(), ComponentRefused> {
        match name {
            "describe" | "invoke" if kind == ComponentExternalKind::Func => {
                self.exports += 1;
                Ok(())
            }
            _ => refuse(format!("it exports `{name}`, and must export the functions `describe` and `invoke` only")),
        }
    }

    fn memories(&self, reader: wasmparser::MemorySectionReader<'_>) -> Result<(), ComponentRefused> {
        for memory in reader {
            let memory = memory.map_err(|error| malformed(&error))?;
            if memory.memory64 || memory.shared {
                return refuse("it has a memory of 64 bits or a shared one, which are off here");
            }
            let bytes = memory.initial.saturating_mul(64 << 10);
            if bytes > self.ceilings.memory_bytes {
                return refuse(format!(
                    "it begins with {bytes} bytes of memory; the limit is {}",
                    self.ceilings.memory_bytes
                ));
            }
        }
        Ok(())
    }

    fn tables(&self, reader: wasmparser::TableSectionReader<'_>) -> Result<(), ComponentRefused> {
        for table in reader {
            let table = table.map_err(|error| malformed(&error))?.ty;
            if table.table64 {
                return refuse("it has a table of 64 bits, which is off here");
            }
            if table.initial > self.ceilings.table_elements {
                return refuse(format!(
                    "it begins with a table of {} elements; the limit is {}",
                    table.initial, self.ceilings.table_elements
                ));
            }
        }
        Ok(())
    }

    /// Walks a section of component types. wasmparser reads a type within a type by recursion, three
    /// bytes a level; this keeps the levels in a list instead, and stops at a depth that nobody needs.
    fn component_types(&mut self, reader: &mut BinaryReader<'_>) -> Result<(), Walk> {
        let sections_own = reader.read_var_u32()?;
        count(&mut self.counts.types, sections_own, TYPES_MAX, "types")?;
        // How many entries are still to come, level by level, and whether they are declarations.
        let mut levels = vec![(sections_own, false)];
        while let Some((left, declarations)) = levels.last_mut() {
            let declarations = *declarations;
            match left.checked_sub(1) {
                None => {
                    levels.pop();
                    continue;
                }
                Some(fewer) => *left = fewer,
            }
            if declarations && !type_follows(reader)? {
                continue;
            }
            let mut ahead = reader.clone();
            if matches!(ahead.read_u8()?, 0x41 | 0x42) {
                let more = ahead.read_var_u32()?;
                count(&mut self.counts.types, more, TYPES_MAX, "types")?;
                levels.push((more, true));
                if levels.len() > TYPE_NESTING_MAX {
                    return Err(Walk::Refused(ComponentRefused::new(format!(
                        "it nests types deeper than {TYPE_NESTING_MAX}"
                    ))));
                }
                *reader = ahead;
            } else {
                reader.read::<ComponentType<'_>>()?;
            }
        }
        Ok(())
    }
}

/// Reads one declaration unless it is a type: then it stands before the type.
fn type_follows(reader: &mut BinaryReader<'_>) -> Result<bool, Walk> {
    let at = reader.original_position();
    match reader.read_u8()? {
        0x00 => reader.read::<CoreType<'_>>().map(drop)?,
        0x01 => return Ok(true),
        0x02 => reader.read::<ComponentAlias<'_>>().map(drop)?,
        0x03 => reader.read::<ComponentImport<'_>>().map(drop)?,
        0x04 => {
            reader.read::<ComponentExternName<'_>>()?;
            reader.read::<ComponentTypeRef>()?;
        }
        _ => return Err(Walk::Refused(ComponentRefused::new(format!("it does not parse: no declaration at {at:#x}")))),
    }
    Ok(false)
}

/// Why a walk over types stopped.
enum Walk {
    Malformed(wasmparser::BinaryReaderError),
    Refused(ComponentRefused),
}

impl Walk {
    fn into_refused(self) -> ComponentRefused {
        match self {
            Self::Malformed(error) => malformed(&error),
            Self::Refused(refused) => refused,
        }
    }
}

impl From<wasmparser::BinaryReaderError> for Walk {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed(error)
    }
}

impl From<ComponentRefused> for Walk {
    fn from(refused: ComponentRefused) -> Self {
        Self::Refused(refused)
    }
}

fn count(counted: &mut u64, more: u32, max: u64, what: &str) -> Result<(), ComponentRefused> {
    *counted += u64::from(more);
    if *counted > max {
        return refuse(format!("it has more than {max} {what}"));
    }
    Ok(())
}

fn function(body: &wasmparser::FunctionBody<'_>) -> Result<(), ComponentRefused> {
    if body.as_bytes().len() > FUNCTION_BYTES_MAX {
        return refuse(format!("one of its functions is larger than {FUNCTION_BYTES_MAX} bytes"));
    }
    let mut locals = 0_u64;
    for group in body.get_locals_reader().map_err(|error| malformed(&error))? {
        let (more, _) = group.map_err(|error| malformed(&error))?;
        locals += u64::from(more);
        if locals > FUNCTION_LOCALS_MAX {
            return refuse(format!("one of its functions has more than {FUNCTION_LOCALS_MAX} locals"));
        }
    }
    Ok(())
}
