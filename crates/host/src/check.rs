//! What a module has to be before it may run: every rule that can be checked without running it, in one place.

use std::collections::BTreeMap;
use std::fmt;

use slung_abi::{EXPORTS, Export, ExportKind, Needed, Signature, ValueType};
use wasmparser::WasmFeatures;
use wasmtime::{ExternType, FuncType, ValType};

use crate::journal::printable;
use crate::options::{HostOptions, TABLES_MAX};

/// Problems that are listed of one module: enough to see the pattern of what is wrong, whoever wrote it.
const PROBLEMS_MAX: usize = 32;
/// Bytes of a name or reason that comes from a module and is shown: mangled names are long.
const SHOWN_BYTES_MAX: usize = 200;
/// Bytes of a page of linear memory.
const PAGE_BYTES: u64 = 65_536;

/// Why a module can't be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Too many bytes.
    #[error("the module has {bytes} bytes, at most {bytes_max} are allowed")]
    TooBig {
        /// Its size.
        bytes: usize,
        /// [`HostOptions::module_bytes_max`].
        bytes_max: usize,
    },
    /// The bytes don't start as WebAssembly does.
    #[error("this is no WebAssembly module: it does not start with `\\0asm` and version 1")]
    NotWasm,
    /// A component, or another layer above core modules.
    #[error(
        "this is a WebAssembly component, a core module is needed: build for wasm32-wasip1 and do not wrap the result"
    )]
    Component,
    /// It uses what is switched off here.
    #[error("the module uses a WebAssembly feature that this host does not have: {reason}")]
    FeatureOff {
        /// Which one, and where.
        reason: String,
    },
    /// It is malformed, or can't be compiled.
    #[error("the module is malformed: {reason}")]
    Invalid {
        /// What is wrong, and where.
        reason: String,
    },
    /// Nothing can be run here, this module included.
    #[error("the WebAssembly engine can't be set up on this machine: {reason}")]
    NoEngine {
        /// Why.
        reason: String,
    },
    /// It imports what nobody provides.
    #[error(
        "unknown import `{module}.{name}`: this host provides the functions of `env` in the guest ABI and WASI preview 1"
    )]
    UnknownImport {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// It imports what is provided, but as something else.
    #[error("import `{module}.{name}` is {found}, provided is {provided}")]
    WrongImport {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
        /// What the module declares.
        found: String,
        /// What there is.
        provided: String,
    },
    /// It does not export what it has to.
    #[error("export `{name}` is missing: {expected} is needed")]
    MissingExport {
        /// The export's name.
        name: String,
        /// What it has to be.
        expected: String,
    },
    /// It exports what it has to, but as something else.
    #[error("export `{name}` is {found}, needed is {expected}")]
    WrongExport {
        /// The export's name.
        name: String,
        /// What it is.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// It has no way in.
    #[error("nothing to start: neither `call`, {call}, nor `_start`, {start}, is exported")]
    MissingEntry {
        /// What `call` has to be.
        call: String,
        /// What `_start` has to be.
        start: String,
    },
    /// It starts with more memory than it may have.
    #[error("the memory starts with {bytes} bytes, at most {bytes_max} are allowed")]
    MemoryTooBig {
        /// The memory's first size.
        bytes: u64,
        /// [`HostOptions::memory_bytes_max`].
        bytes_max: usize,
    },
    /// It starts with more tables, or larger ones, than it may have.
    #[error("{tables} tables of up to {elements} elements, at most {TABLES_MAX} of {elements_max} are allowed")]
    TablesTooBig {
        /// Number of tables.
        tables: u32,
        /// The largest one's first size.
        elements: u64,
        /// [`HostOptions::table_elements_max`].
        elements_max: usize,
    },
}

/// Everything that is wrong with a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// What the module was called by who wanted to load it.
    pub module: String,
    /// What is wrong, in the order of the module; never empty.
    pub problems: Vec<Problem>,
    /// Further problems that are not listed.
    pub more: usize,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "module {} can't be loaded", self.module)?;
        for problem in &self.problems {
            write!(f, "\n- {problem}")?;
        }
        if self.more > 0 {
            write!(f, "\n- and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

/// By which export a module is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// `call`.
    Call,
    /// `_start`, where there is no `call`.
    Start,
}

/// What a good module is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Size of the module, bytes.
    pub bytes: usize,
    /// Its imports, as `module.name signature`, in its order.
    pub imports: Vec<String>,
    /// Those of its exports that the ABI knows, in its order.
    pub exports: Vec<String>,
    /// How it is entered.
    pub entry: Entry,
    /// Memory that it starts with, bytes.
    pub memory_bytes: u64,
    /// Memory that it says it needs at most, bytes, if it says so.
    pub memory_bytes_max: Option<u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "size     {} bytes", self.bytes)?;
        write!(f, "memory   {} bytes at the start", self.memory_bytes)?;
        match self.memory_bytes_max {
            Some(bytes) => writeln!(f, ", at most {bytes}")?,
            None => writeln!(f, ", no limit of its own")?,
        }
        let entry = match self.entry {
            Entry::Call => "call",
            Entry::Start => "_start",
        };
        writeln!(f, "entry    {entry}")?;
        for (what, rows) in [("imports  ", &self.imports), ("exports  ", &self.exports)] {
            if rows.is_empty() {
                writeln!(f, "{what}none")?;
            }
            for (index, row) in rows.iter().enumerate() {
                writeln!(f, "{}{row}", if index == 0 { what } else { "         " })?;
            }
        }
        Ok(())
    }
}

/// What the linker provides, by module and name.
pub(crate) type Provided = BTreeMap<(String, String), FuncType>;

/// Collects problems.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    listed: Vec<Problem>,
    more: usize,
}

impl Problems {
    fn push(&mut self, problem: Problem) {
        if self.listed.len() < PROBLEMS_MAX {
            self.listed.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// The error that they make, if there are any.
    pub(crate) fn finish(self, module: &str) -> Result<(), LoadError> {
        if self.listed.is_empty() {
            return Ok(());
        }
        Err(LoadError { module: module.to_owned(), problems: self.listed, more: self.more })
    }
}

/// What can be seen before anything is parsed.
pub(crate) fn check_bytes(bytes: &[u8], options: &HostOptions, problems: &mut Problems) {
    let bytes_max = options.module_bytes_max;
    if bytes.len() > bytes_max {
        problems.push(Problem::TooBig { bytes: bytes.len(), bytes_max });
    }
    // After the magic number: version 1 and layer 0 (core module), both u16. Components have layer 1.
    match bytes.first_chunk::<8>() {
        Some([b'\0', b'a', b's', b'm', 1, 0, 0, 0]) => {}
        Some([b'\0', b'a', b's', b'm', _, _, 1, 0]) => problems.push(Problem::Component),
        _ => problems.push(Problem::NotWasm),
    }
}

impl LoadError {
    /// The compiler's error in the words of [`Problem`]: what is valid with every feature on, uses one that is off.
    pub(crate) fn compile(module: &str, bytes: &[u8], error: &wasmtime::Error) -> Self {
        let reason = reason(error);
        let off = wasmparser::Validator::new_with_features(WasmFeatures::all()).validate_all(bytes).is_ok();
        Self::one(module, if off { Problem::FeatureOff { reason } } else { Problem::Invalid { reason } })
    }

    /// The engine's error, where the check was all that was asked for.
    pub(crate) fn no_engine(module: &str, error: &wasmtime::Error) -> Self {
        Self::one(module, Problem::NoEngine { reason: reason(error) })
    }

    fn one(module: &str, problem: Problem) -> Self {
        Self { module: module.to_owned(), problems: vec![problem], more: 0 }
    }
}

fn reason(error: &wasmtime::Error) -> String {
    printable(&format!("{error:#}").replace('\n', " "), SHOWN_BYTES_MAX)
}

/// Imports, exports and first sizes of a module that compiles.
pub(crate) fn check_module(
    module: &wasmtime::Module,
    provided: &Provided,
    options: &HostOptions,
    problems: &mut Problems,
) {
    for import in module.imports() {
        let shown = |text: &str| printable(text, SHOWN_BYTES_MAX);
        let names = (shown(import.module()), shown(import.name()));
        match (provided.get(&(import.module().to_owned(), import.name().to_owned())), import.ty()) {
            (None, _) => problems.push(Problem::UnknownImport { module: names.0, name: names.1 }),
            (Some(provided), ExternType::Func(found)) if FuncType::eq(provided, &found) => {}
            (Some(provided), found) => problems.push(Problem::WrongImport {
                module: names.0,
                name: names.1,
                found: extern_words(&found),
                provided: function_words(provided),
            }),
        }
    }
    for export in &EXPORTS {
        check_export(module, export, problems);
    }
    if entry(module).is_none() {
        let words =
            |name| EXPORTS.iter().find(|row| row.name == name).map_or_else(String::new, |row| kind_words(row.kind));
        problems.push(Problem::MissingEntry { call: words("call"), start: words("_start") });
    }
    let needs = module.resources_required();
    let bytes = needs.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE_BYTES);
    if bytes > options.memory_bytes_max as u64 {
        problems.push(Problem::MemoryTooBig { bytes, bytes_max: options.memory_bytes_max });
    }
    let (tables, elements) = (needs.num_tables, needs.max_initial_table_size.unwrap_or(0));
    if tables as usize > TABLES_MAX || elements > options.table_elements_max as u64 {
        problems.push(Problem::TablesTooBig { tables, elements, elements_max: options.table_elements_max });
    }
}

fn check_export(module: &wasmtime::Module, row: &Export, problems: &mut Problems) {
    let expected = || kind_words(row.kind);
    let Some(found) = module.get_export(row.name) else {
        if row.needed == Needed::Always {
            problems.push(Problem::MissingExport { name: row.name.to_owned(), expected: expected() });
        }
        return;
    };
    let fits = match (row.kind, &found) {
        (ExportKind::Memory, ExternType::Memory(_)) => true,
        (ExportKind::Function(signature), ExternType::Func(function)) => same_signature(signature, function),
        _ => false,
    };
    // `_start` counts only where it is the way in.
    let counts = row.needed != Needed::Entry || entry(module) == entry_of(row.name);
    if !fits && counts {
        let found = extern_words(&found);
        problems.push(Problem::WrongExport { name: row.name.to_owned(), found, expected: expected() });
    }
}

fn entry_of(name: &str) -> Option<Entry> {
    match name {
        "call" => Some(Entry::Call),
        "_start" => Some(Entry::Start),
        _ => None,
    }
}

/// By which export the module is entered: of those that it has, the first in the table.
pub(crate) fn entry(module: &wasmtime::Module) -> Option<Entry> {
    let mut rows = EXPORTS.iter().filter(|row| row.needed == Needed::Entry);
    rows.find(|row| module.get_export(row.name).is_some()).and_then(|row| entry_of(row.name))
}

/// What a good module is.
pub(crate) fn report(module: &wasmtime::Module, entry: Entry, bytes: usize) -> Report {
    let imports = module.imports().map(|import| {
        let ExternType::Func(function) = import.ty() else { return format!("{}.{}", import.module(), import.name()) };
        format!("{}.{} {}", import.module(), import.name(), signature_words(&function))
    });
    let exports = EXPORTS.iter().filter_map(|row| match module.get_export(row.name)? {
        ExternType::Func(function) => Some(format!("{} {}", row.name, signature_words(&function))),
        _ => Some(row.name.to_owned()),
    });
    let memory = match module.get_export("memory") {
        Some(ExternType::Memory(memory)) => Some(memory),
        _ => None,
    };
    Report {
        bytes,
        imports: imports.collect(),
        exports: exports.collect(),
        entry,
        memory_bytes: memory.as_ref().map_or(0, |memory| memory.minimum() * PAGE_BYTES),
        memory_bytes_max: memory.and_then(|memory| memory.maximum()).map(|pages| pages * PAGE_BYTES),
    }
}

fn same_signature(expected: Signature, found: &FuncType) -> bool {
    let same = |(expected, found): (&ValueType, ValType)| {
        matches!(
            (expected, found),
            (ValueType::I32, ValType::I32) | (ValueType::I64, ValType::I64) | (ValueType::F64, ValType::F64)
        )
    };
    expected.params.len() == found.params().len()
        && expected.result.iter().len() == found.results().len()
        && expected.params.iter().zip(found.params()).all(same)
        && expected.result.iter().zip(found.results()).all(same)
}

fn kind_words(kind: ExportKind) -> String {
    match kind {
        ExportKind::Memory => "a memory".to_owned(),
        ExportKind::Function(signature) => {
            let params: Vec<_> = signature.params.iter().map(|value| value_words(*value)).collect();
            let result = signature.result.map_or_else(String::new, |value| format!(" -> {}", value_words(value)));
            format!("a function ({}){result}", params.join(", "))
        }
    }
}

fn value_words(value: ValueType) -> &'static str {
    match value {
        ValueType::I32 => "i32",
        ValueType::I64 => "i64",
        ValueType::F64 => "f64",
    }
}

fn extern_words(found: &ExternType) -> String {
    match found {
        ExternType::Func(function) => function_words(function),
        ExternType::Global(_) => "a global".to_owned(),
        ExternType::Table(_) => "a table".to_owned(),
        ExternType::Memory(_) => "a memory".to_owned(),
        ExternType::Tag(_) => "an exception tag".to_owned(),
    }
}

fn function_words(function: &FuncType) -> String {
    format!("a function {}", signature_words(function))
}

fn signature_words(function: &FuncType) -> String {
    let list = |values: &mut dyn Iterator<Item = ValType>| {
        values.map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
    };
    let params = list(&mut function.params());
    let results = list(&mut function.results());
    let shown = match function.results().len() {
        0 => format!("({params})"),
        1 => format!("({params}) -> {results}"),
        _ => format!("({params}) -> ({results})"),
    };
    printable(&shown, SHOWN_BYTES_MAX)
}
