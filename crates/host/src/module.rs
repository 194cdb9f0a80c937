//! Modules that may be run: the engine's settings, and the way from bytes to something that can be instantiated.

use std::sync::Arc;
use std::time::Duration;

use slung_abi::{FUNCTIONS, IMPORT_MODULE, ValueType};
use wasmtime::{
    Cache, CacheConfig, Config, Engine, ExternType, FuncType, InstancePre, Linker, Store, ValType,
    WasmBacktraceDetails, WasmFeatures,
};
use wasmtime_wasi::p1::{self, WasiP1Ctx};

use crate::check::{self, Entry, LoadError, Problems, Provided, Report};
use crate::guest::Guest;
use crate::options::{HOST_STACK_BYTES, HostOptions, StartOptions};
use crate::{imports, wasi};

/// A module that was checked and compiled. Cloning it is cheap.
#[derive(Clone)]
pub struct Module {
    pre: InstancePre<Guest>,
    report: Arc<Report>,
}

impl Module {
    /// What it is, for people.
    pub fn report(&self) -> &Report {
        &self.report
    }

    pub(crate) fn pre(&self) -> &InstancePre<Guest> {
        &self.pre
    }

    pub(crate) fn entry(&self) -> Entry {
        self.report.entry
    }
}

/// Compiles modules and joins them to the host's functions.
pub(crate) struct Loader {
    engine: Engine,
    linker: Linker<Guest>,
    provided: Provided,
}

impl Loader {
    pub(crate) fn new(options: &HostOptions) -> wasmtime::Result<Self> {
        options.check().map_err(wasmtime::Error::msg)?;
        let engine = Engine::new(&config(options)?)?;
        let mut linker = Linker::new(&engine);
        wasi::add_to_linker(&mut linker)?;
        imports::add_to_linker(&mut linker, Duration::from_millis(options.poll_sleep_ms_max.max(1)))?;
        let provided = provided(&engine)?;
        Ok(Self { engine, linker, provided })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Checks, compiles, checks more, links.
    pub(crate) fn load(&self, name: &str, bytes: &[u8], options: &HostOptions) -> Result<Module, LoadError> {
        let mut problems = Problems::default();
        check::check_bytes(bytes, options, &mut problems);
        problems.finish(name)?;

        let mut problems = Problems::default();
        let module = match wasmtime::Module::from_binary(&self.engine, bytes) {
            Ok(module) => module,
            Err(error) => return Err(LoadError::compile(name, bytes, &error)),
        };
        check::check_module(&module, &self.provided, options, &mut problems);
        problems.finish(name)?;

        let entry =
            check::entry(&module).ok_or_else(|| LoadError::compile(name, bytes, &wasmtime::format_err!("no entry")))?;
        let pre = self.linker.instantiate_pre(&module).map_err(|error| LoadError::compile(name, bytes, &error))?;
        Ok(Module { pre, report: Arc::new(check::report(&module, entry, bytes.len())) })
    }
}

/// The engine's settings. The reservation of 4 GiB of address space for each memory is left as it is: with less, every
/// access is checked, which costs up to 2.8 times.
fn config(options: &HostOptions) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    if let Some(dir) = &options.cache_dir {
        let mut cache = CacheConfig::new();
        cache.with_directory(dir);
        config.cache(Some(Cache::new(cache)?));
    }
    config.epoch_interruption(true);
    config.max_wasm_stack(options.wasm_stack_bytes_max);
    config.async_stack_size(options.wasm_stack_bytes_max + HOST_STACK_BYTES);
    // Not from the environment: modules are not to be read for debug information.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    // What no compiler's guest needs yet. A feature that is on can never be taken away from the modules that use it.
    let off = WasmFeatures::MEMORY64
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::THREADS
        | WasmFeatures::SHARED_EVERYTHING_THREADS
        | WasmFeatures::CUSTOM_PAGE_SIZES
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::LEGACY_EXCEPTIONS
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::GC
        | WasmFeatures::STACK_SWITCHING
        | WasmFeatures::WIDE_ARITHMETIC;
    config.wasm_features(off, false);
    Ok(config)
}

/// Names and types of all that a module may import: the ABI's table, and what WASI preview 1 consists of.
fn provided(engine: &Engine) -> wasmtime::Result<Provided> {
    let mut provided = Provided::new();
    let mut wasi = Linker::<WasiP1Ctx>::new(engine);
    p1::add_to_linker_async(&mut wasi, |context| context)?;
    let mut store = Store::new(engine, wasi::context(&StartOptions::default()));
    let functions: Vec<_> =
        wasi.iter(&mut store).map(|(module, name, item)| (module.to_owned(), name.to_owned(), item)).collect();
    for (module, name, item) in functions {
        if let ExternType::Func(function) = item.ty(&store) {
            provided.insert((module, name), function);
        }
    }
    let value = |value: &ValueType| match value {
        ValueType::I32 => ValType::I32,
        ValueType::I64 => ValType::I64,
        ValueType::F64 => ValType::F64,
    };
    for row in &FUNCTIONS {
        let (params, result) = (row.signature.params.iter().map(value), row.signature.result.iter().map(value));
        provided.insert((IMPORT_MODULE.to_owned(), row.name.to_owned()), FuncType::new(engine, params, result));
    }
    Ok(provided)
}
