//! Custom types: values that a WebAssembly module judges, which comes with the topic's definition.
//!
//! # How to write one
//!
//! In any language that compiles to WebAssembly without a host: a module that imports nothing, has no start function, and exports
//!
//! ```text
//! memory                                            the one memory
//! alloc(length: i32) -> i32                         where so many bytes may be put that the functions below are given
//! validate(at: i32, length: i32) -> i64             0 if these bytes are a value, else a refusal
//! to_json(at: i32, length: i32) -> i64              the value as JSON text
//!
//! from_json(at: i32, length: i32) -> i64            if wanted: the value that a JSON text says
//!
//! delta(base: i32, length: i32, new: i32, length: i32) -> i64      if wanted, both or none: what leads from one value
//! apply(base: i32, length: i32, delta: i32, length: i32) -> i64    to the next, and the next value again
//! ```
//!
//! Deltas are for clients, which change a value by one without a look at all of it (`mangrove patch --delta`): what two of them change in different parts of it is not lost to either at a node that takes both.
//! Between nodes values travel as differences of bytes, like others: a neighbour may not have the module yet.
//!
//! An answer is `address << 32 | length` of bytes in the memory; with the highest bit set (`1 << 63`) it is a *refusal* instead, and the bytes say why, in UTF-8. If they begin with `/`, their first line is a JSON pointer to
//! what is wrong, and the rest says what is wrong with it. What is asked and answered has at most [`BYTES_MAX`] bytes, a reason [`REASON_BYTES_MAX`].
//!
//! Every call has an instance of its own: nothing that one leaves behind is there for the next, so what a function answers depends on what it is asked, and nothing has to be freed. Values are compared as
//! bytes; a type whose values have several encodings should take one of them only.
//!
//! # What it may cost
//!
//! A module comes from anybody and judges every value at every node, between two inputs. So:
//!
//! - It is checked whole before anything of it runs: what it imports (nothing), exports (these, with these types), how large it is in every respect that costs its compiler or each instance.
//! - A call has fuel, [`FUEL`] and [`FUEL_PER_BYTE`] for what it is given, and memory, [`MEMORY_BYTES`] and [`MEMORY_PER_BYTE`]. The first is more than a check takes, and less than a millisecond.
//! - A trap, an end of the fuel, an answer that is out of the memory or not what it should be is a *failure*: it refuses that value and harms nothing else.
//! - What failures have cost is added up, over all definitions that name the module, and with [`WASTE_MAX`] the module is given up for this run of the node: from then on it refuses without running. So a module that
//!   never ends costs its node less than a second altogether. A value that is refused properly is no failure, however often that happens.
//!
//! It computes the same everywhere, with one exception: the sign and the digits of a NaN that an operation gives are the processor's, so a module refuses NaN, or writes one of its own. How far
//! memory grows and how deep calls go is fixed here. Whether a value near the limits fails may still differ from version to version of this program, and a module given up differs from node
//! to node: [`CustomError::Refused`] is what the module says, everywhere; [`CustomError::Failed`] and [`CustomError::GivenUp`] are about this node.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;
use wasmi::{
    Config, Engine, ExternType, Instance, Memory, Module, Store, StoreLimits, StoreLimitsBuilder, ValType, WasmParams, WasmResults,
};
use wasmparser::{ElementItems, Parser, Payload};

use crate::value::ValueError;

/// How long a module is at most, in bytes.
pub const MODULE_BYTES_MAX: usize = 512 << 10;

/// How long a value is at most, and whatever else a module is given or gives, in bytes: an interpreter looks at each of them.
pub const BYTES_MAX: usize = 1 << 20;

/// How long a reason for a refusal is at most, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;

/// How much fuel each call has, about one an instruction.
pub const FUEL: u64 = 250_000;

/// How much fuel a call has besides for each byte that it is given.
pub const FUEL_PER_BYTE: u64 = 64;

/// How much memory each call may have, in bytes: what compilers reserve for a stack, and as much again.
pub const MEMORY_BYTES: usize = 2 << 20;

/// How much memory a call may have besides for each byte that it is given.
pub const MEMORY_PER_BYTE: usize = 8;

/// How much fuel may go into failures before a module is given up.
pub const WASTE_MAX: u64 = 50_000_000;

/// What a failure costs besides its fuel: an instance was made for it.
const WASTE_OF_A_CALL: u64 = 10_000;

/// How many functions, exports, globals, segments and elements for its table a module has at most: each instance has them again.
const FUNCTIONS_MAX: u32 = 4_096;
const EXPORTS_MAX: u32 = 64;
const GLOBALS_MAX: u32 = 256;
const SEGMENTS_MAX: u32 = 256;
const ELEMENTS_MAX: u32 = 4_096;

/// How many parameters and results a function has at most: an instruction passes all of them.
const PARAMETERS_MAX: u32 = 32;

/// How many locals a function has at most, and all together: each call makes room for them, and so does the compiler.
const LOCALS_MAX: u32 = 256;
const LOCALS_SUM_MAX: u32 = 65_536;

/// How deep calls may go, and how many values of 8 bytes they may have there altogether.
const CALLS_MAX: usize = 1_000;
const STACK_VALUES_MAX: usize = 128 << 10;

/// Why something is no module that can judge values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no module for a custom type: {0}")]
pub struct BadModule(String);

/// Why a module does not take a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustomError {
    /// The module says so.
    #[error("at {at:?}: {why}")]
    Refused {
        /// Where it is wrong: a JSON pointer (RFC 6901).
        at: String,
        /// What is wrong.
        why: String,
    },
    /// The module could not say. Nothing of the call is left behind.
    #[error("its type's module failed: {0}")]
    Failed(String),
    /// The module has failed too often in this run of the node, and is not asked any more.
    #[error("its type's module is given up until the node starts again: {0}")]
    GivenUp(String),
    /// It has more than [`BYTES_MAX`] bytes.
    #[error("a custom value has at most {BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// The module does not have what was asked of it.
    #[error("its type's module has no {0}")]
    Missing(&'static str),
}

impl From<CustomError> for ValueError {
    fn from(error: CustomError) -> ValueError {
        match error {
            CustomError::Refused { at, why } => ValueError::Misfit { at, why },
            other => ValueError::Misfit { at: String::new(), why: other.to_string() },
        }
    }
}

/// A module, ready to judge values.
pub struct Custom {
    engine: Engine,
    module: Module,
    takes_json: bool,
    makes_deltas: bool,
    /// What failures have cost.
    waste: AtomicU64,
    /// The failure that was one too many.
    given_up: OnceLock<String>,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exports = self.module.exports().map(|export| export.name());
        f.debug_tuple("Custom").field(&exports.collect::<Vec<_>>()).finish()
    }
}

/// What a module answers: bytes, or why not.
type Answer = Result<Vec<u8>, CustomError>;

impl Custom {
    /// Compiles a module.
    ///
    /// # Errors
    /// It is none, or has too much, or does not have what it must, with the types that it must have.
    pub fn new(wasm: &[u8]) -> Result<Custom, BadModule> {
        if wasm.len() > MODULE_BYTES_MAX {
            return Err(BadModule(format!("it has {} bytes, and may have {MODULE_BYTES_MAX}", wasm.len())));
        }
        look_through(wasm)?;
        let engine = Engine::new(&config());
        let module = Module::new(&engine, wasm).map_err(|error| BadModule(error.to_string()))?;
        let has = |name: &'static str, inputs: &[ValType], output: ValType| match module.get_export(name) {
            None => Ok(false),
            Some(ExternType::Func(is)) if is.params() == inputs && is.results() == [output] => Ok(true),
            Some(_) => Err(BadModule(format!("its export {name:?} is not the function that it should be"))),
        };
        let must = |name, inputs: &[ValType], output| match has(name, inputs, output)? {
            true => Ok(()),
            false => Err(BadModule(format!("it exports no {name:?}"))),
        };
        match module.get_export("memory") {
            Some(ExternType::Memory(memory)) if !memory.is_64() => {}
            _ => return Err(BadModule("it exports no \"memory\"".into())),
        }
        let (bytes, two) = ([ValType::I32; 2], [ValType::I32; 4]);
        must("alloc", &bytes[..1], ValType::I32)?;
        must("validate", &bytes, ValType::I64)?;
        must("to_json", &bytes, ValType::I64)?;
        let takes_json = has("from_json", &bytes, ValType::I64)?;
        let makes_deltas = has("delta", &two, ValType::I64)?;
        if has("apply", &two, ValType::I64)? != makes_deltas {
            return Err(BadModule("it exports only one of \"delta\" and \"apply\"".into()));
        }
        let custom = Custom { engine, module, takes_json, makes_deltas, waste: AtomicU64::new(0), given_up: OnceLock::new() };
        // What does not fit its memory or its table is found here.
        custom.run(0).map_err(|error| BadModule(error.to_string()))?;
        Ok(custom)
    }

    /// Whether values can be given as JSON.
    pub fn takes_json(&self) -> bool {
        self.takes_json
    }

    /// Whether the module knows of what changes from one value to the next.
    pub fn makes_deltas(&self) -> bool {
        self.makes_deltas
    }

    /// That bytes are a value.
    ///
    /// # Errors
    /// They are not, or it cannot be found out.
    pub fn validate(&self, bytes: &[u8]) -> Result<(), CustomError> {
        self.call(&[bytes], |run, given| {
            let answer = run.ask("validate", (given[0].0, given[0].1))?;
            match (answer, run.answer(answer)?) {
                (0, _) => Ok(Ok(())),
                (_, Err(refusal)) => Ok(Err(refusal)),
                (_, Ok(_)) => Err("\"validate\" gave neither 0 nor a refusal".into()),
            }
        })
    }

    /// A value as JSON.
    ///
    /// # Errors
    /// The module refuses, or it cannot be found out.
    pub fn to_json(&self, bytes: &[u8]) -> Result<Value, CustomError> {
        self.call(&[bytes], |run, given| {
            let answer = run.ask("to_json", (given[0].0, given[0].1))?;
            match run.answer(answer)? {
                Ok(text) => serde_json::from_slice(&text).map(Ok).map_err(|error| format!("\"to_json\" gave no JSON: {error}")),
                Err(refusal) => Ok(Err(refusal)),
            }
        })
    }

    /// The bytes of a value that is given as JSON. They are a value.
    ///
    /// # Errors
    /// The module takes no JSON, or refuses this, or it cannot be found out.
    pub fn from_json(&self, json: &Value) -> Answer {
        if !self.takes_json {
            return Err(CustomError::Missing("from_json: give the value as bytes"));
        }
        let text = json.to_string();
        let bytes = self.call(&[text.as_bytes()], |run, given| {
            let answer = run.ask("from_json", (given[0].0, given[0].1))?;
            run.answer(answer)
        })?;
        self.validate(&bytes)?;
        Ok(bytes)
    }

    /// What leads from one value to another, for whoever has the first; `None` if the module makes none, or none that is shorter than the value.
    pub fn delta(&self, base: &[u8], new: &[u8]) -> Option<Vec<u8>> {
        if !self.makes_deltas {
            return None;
        }
        let made = self.call(&[base, new], |run, given| {
            let answer = run.ask("delta", (given[0].0, given[0].1, given[1].0, given[1].1))?;
            run.answer(answer)
        });
        let delta = made.ok().filter(|delta| delta.len() < new.len())?;
        let applied = self.call(&[base, &delta], |run, given| match run.apply(given)? {
            // A delta that does not lead there is not the receiver's affair.
            Ok(applied) if applied != new => Err("\"apply\" does not give back what \"delta\" was made of".into()),
            answer => Ok(answer),
        });
        applied.ok().map(|_| delta)
    }

    /// What a delta makes of its base. Whether that is a value is another question.
    ///
    /// # Errors
    /// The module makes no deltas, or refuses this, or it cannot be found out.
    pub fn apply(&self, base: &[u8], delta: &[u8]) -> Answer {
        if !self.makes_deltas {
            return Err(CustomError::Missing("apply"));
        }
        self.call(&[base, delta], |run, given| run.apply(given))
    }

    /// Gives a new instance these bytes, and asks it. What goes wrong with the asking is a failure.
    fn call<T>(
        &self,
        inputs: &[&[u8]],
        ask: impl FnOnce(&mut Run, &[(i32, i32)]) -> Result<Result<T, CustomError>, String>,
    ) -> Result<T, CustomError> {
        if let Some(last) = self.given_up.get() {
            return Err(CustomError::GivenUp(last.clone()));
        }
        let length = inputs.iter().map(|input| input.len()).sum::<usize>();
        if let Some(input) = inputs.iter().find(|input| input.len() > BYTES_MAX) {
            return Err(CustomError::TooLong(input.len()));
        }
        let fuel = FUEL + FUEL_PER_BYTE * length as u64;
        let mut run = match self.run(length) {
            Ok(run) => run,
            Err(why) => return Err(self.failed(why, fuel)),
        };
        let asked = inputs.iter().map(|input| run.put(input)).collect::<Result<Vec<_>, _>>().and_then(|given| ask(&mut run, &given));
        asked.unwrap_or_else(|why| Err(self.failed(why, fuel - run.store.get_fuel().unwrap_or(0).min(fuel))))
    }

    /// An instance with what it may have for so many bytes.
    fn run(&self, length: usize) -> Result<Run, String> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(MEMORY_BYTES + MEMORY_PER_BYTE * length)
            .table_elements(ELEMENTS_MAX as usize)
            .instances(1)
            .memories(1)
            .tables(1)
            .build();
        let mut store = Store::new(&self.engine, limits);
        store.limiter(|limits| limits);
        store.set_fuel(FUEL + FUEL_PER_BYTE * length as u64).map_err(|error| error.to_string())?;
        let instance = Instance::new(&mut store, &self.module, &[]).map_err(|error| error.to_string())?;
        let memory = instance.get_memory(&store, "memory").ok_or("it has no memory")?;
        Ok(Run { store, instance, memory })
    }

    fn failed(&self, why: String, fuel: u64) -> CustomError {
        let cost = fuel + WASTE_OF_A_CALL;
        if self.waste.fetch_add(cost, Ordering::Relaxed).saturating_add(cost) >= WASTE_MAX {
            self.given_up.get_or_init(|| why.clone());
        }
        CustomError::Failed(why)
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        .ignore_custom_sections(true)
        // Nothing is compiled while a value waits, and fuel is for values alone.
        .compilation_mode(wasmi::CompilationMode::Eager)
        .set_max_recursion_depth(CALLS_MAX)
        .set_max_stack_height(STACK_VALUES_MAX)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false);
    config
}

/// That nothing in a module costs more than it may, before it is compiled.
fn look_through(wasm: &[u8]) -> Result<(), BadModule> {
    let bad = |error: wasmparser::BinaryReaderError| BadModule(error.to_string());
    let within = |count: u32, most: u32, what: &str| match count <= most {
        true => Ok(()),
        false => Err(BadModule(format!("it has {count} {what}, and may have {most}"))),
    };
    let (mut locals_sum, mut elements_sum) = (0u32, 0u32);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(bad)? {
            Payload::ImportSection(imports) => within(imports.count(), 0, "imports")?,
            Payload::StartSection { .. } => within(1, 0, "start functions")?,
            Payload::FunctionSection(functions) => within(functions.count(), FUNCTIONS_MAX, "functions")?,
            Payload::GlobalSection(globals) => within(globals.count(), GLOBALS_MAX, "globals")?,
            Payload::ExportSection(exports) => within(exports.count(), EXPORTS_MAX, "exports")?,
            Payload::DataSection(segments) => within(segments.count(), SEGMENTS_MAX, "segments of its memory")?,
            Payload::TypeSection(types) => {
                for function in types.into_iter_err_on_gc_types() {
                    let function = function.map_err(bad)?;
                    within(
                        (function.params().len() + function.results().len()) as u32,
                        PARAMETERS_MAX,
                        "parameters and results of a function",
                    )?;
                }
            }
            Payload::ElementSection(segments) => {
                within(segments.count(), SEGMENTS_MAX, "segments of its table")?;
                for segment in segments {
                    elements_sum = elements_sum.saturating_add(match segment.map_err(bad)?.items {
                        ElementItems::Functions(items) => items.count(),
                        ElementItems::Expressions(_, items) => items.count(),
                    });
                }
                within(elements_sum, ELEMENTS_MAX, "elements for its table")?;
            }
            Payload::CodeSectionEntry(body) => {
                let mut count = 0u32;
                for local in body.get_locals_reader().map_err(bad)? {
                    count = count.saturating_add(local.map_err(bad)?.0);
                }
                within(count, LOCALS_MAX, "locals in a function")?;
                locals_sum = locals_sum.saturating_add(count);
                within(locals_sum, LOCALS_SUM_MAX, "locals")?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// One instance, for one call.
struct Run {
    store: Store<StoreLimits>,
    instance: Instance,
    memory: Memory,
}

impl Run {
    /// Puts bytes where the module wants them: address and length.
    fn put(&mut self, bytes: &[u8]) -> Result<(i32, i32), String> {
        let length = i32::try_from(bytes.len()).map_err(|_| "too long".to_owned())?;
        let at: i32 = self.ask("alloc", (length,))?;
        // Addresses are unsigned, whatever the type says.
        let there = self.memory.write(&mut self.store, at as u32 as usize, bytes);
        there.map_err(|_| format!("\"alloc\" gave {} for {length} bytes: that is out of its memory", at as u32))?;
        Ok((at, length))
    }

    fn ask<I: WasmParams, O: WasmResults>(&mut self, name: &str, inputs: I) -> Result<O, String> {
        let said = |error: wasmi::Error| format!("{name:?}: {error}");
        self.instance.get_typed_func::<I, O>(&self.store, name).map_err(said)?.call(&mut self.store, inputs).map_err(said)
    }

    fn apply(&mut self, given: &[(i32, i32)]) -> Result<Answer, String> {
        let answer = self.ask("apply", (given[0].0, given[0].1, given[1].0, given[1].1))?;
        self.answer(answer)
    }

    /// The bytes that an answer says.
    fn answer(&self, answer: i64) -> Result<Answer, String> {
        let (at, length) = ((answer as u64 >> 32 & 0x7fff_ffff) as usize, answer as u32 as usize);
        let refused = answer < 0;
        let most = if refused { REASON_BYTES_MAX } else { BYTES_MAX };
        if length > most {
            return Err(format!("an answer of {length} bytes, where {most} are the most"));
        }
        let bytes = self
            .memory
            .data(&self.store)
            .get(at..at + length)
            .ok_or_else(|| format!("an answer of {length} bytes at {at}, out of its memory"))?;
        if !refused {
            return Ok(Ok(bytes.to_vec()));
        }
        let reason = std::str::from_utf8(bytes).map_err(|_| "a reason that is not UTF-8".to_owned())?;
        let (at, why) = if reason.starts_with('/') { reason.split_once('\n').unwrap_or((reason, "")) } else { ("", reason) };
        // It may end on a terminal.
        let plain = |text: &str| text.trim().replace(char::is_control, " ");
        Ok(Err(CustomError::Refused { at: plain(at), why: plain(why) }))
    }
}
