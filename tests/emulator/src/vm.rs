//! A wasm VM: the guest's instance, its memory, and its budget.

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::OnceLock;

use wasmi::errors::HostError;
use wasmi::{CompilationMode, Config, Engine, Instance, Linker, Module, Store, TrapCode, Val};

use crate::hostcalls;
use crate::imports;
use crate::profile::Profile;
use crate::rule::Rule;
use crate::wasi;
use crate::world::{SharedWorld, World};

/// A compiled guest.
#[derive(Clone)]
pub struct Guest(Module);

/// What host calls find in a VM.
pub(crate) struct Data {
    pub(crate) world: SharedWorld,
}

pub(crate) struct Vm {
    store: Store<Data>,
    instance: Instance,
}

/// Why a callback did not return.
#[derive(Debug, Clone)]
pub(crate) enum Stop {
    /// The guest trapped, or its host made it.
    Trap(String),
    /// A rule was broken.
    Broken(Rule, String),
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(why) => write!(formatter, "trap: {why}"),
            Self::Broken(rule, what) => write!(formatter, "{rule}: {what}"),
        }
    }
}

impl HostError for Stop {}

impl Guest {
    /// The filter as it is shipped.
    ///
    /// # Panics
    /// When it does not build.
    #[must_use]
    pub fn filter() -> Self {
        static FILTER: OnceLock<Guest> = OnceLock::new();
        FILTER.get_or_init(|| Self::file(&xtask::build::filter().unwrap())).clone()
    }

    /// A guest from a file.
    ///
    /// # Panics
    /// When it is no module.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self(Module::new(engine(), fs::read(path).unwrap()).unwrap())
    }

    /// A guest from WebAssembly text.
    ///
    /// # Panics
    /// When it does not parse.
    #[must_use]
    pub fn wat(text: &str) -> Self {
        Self(Module::new(engine(), text).unwrap_or_else(|error| panic!("{error}\n{text}")))
    }

    /// The names of its imports, with their modules.
    #[must_use]
    pub fn imports(&self) -> Vec<(String, String)> {
        let names =
            |import: wasmi::ImportType<'_>| (import.module().to_owned(), import.name().to_owned());
        self.0.imports().map(names).collect()
    }

    /// Why a host would not load it; none when it does.
    #[must_use]
    pub fn load_error(&self, profile: Profile) -> Option<String> {
        let world = Rc::new(RefCell::new(World::new(profile)));
        Vm::new(self, &world).err()
    }
}

impl Vm {
    pub(crate) fn new(guest: &Guest, world: &SharedWorld) -> Result<Self, String> {
        let (profile, fuel) = {
            let world = world.borrow();
            (world.profile, world.settings.fuel)
        };
        let mut store = Store::new(engine(), Data { world: world.clone() });
        store.set_fuel(fuel).unwrap();
        let instance = linker(profile)
            .instantiate_and_start(&mut store, &guest.0)
            .map_err(|error| error.to_string())?;
        Ok(Self { store, instance })
    }

    pub(crate) fn has(&mut self, name: &str) -> bool {
        self.instance.get_func(&self.store, name).is_some()
    }

    /// Calls an export; none when the guest does not have it, or it returns nothing.
    pub(crate) fn call(&mut self, name: &str, arguments: &[u32]) -> Result<Option<u32>, Stop> {
        let Some(function) = self.instance.get_func(&self.store, name) else {
            return Ok(None);
        };
        let fuel = self.store.data().world.borrow().settings.fuel;
        self.store.set_fuel(fuel).unwrap();
        let arguments: Vec<_> = arguments.iter().map(|value| Val::I32(*value as i32)).collect();
        let results = function.ty(&self.store).results().len();
        let mut returned = vec![Val::I32(0); results];
        match function.call(&mut self.store, &arguments, &mut returned) {
            Ok(()) => Ok(returned.first().and_then(Val::i32).map(|value| value as u32)),
            Err(error) => Err(stop(&error)),
        }
    }

    /// Pages of linear memory, of 64 KiB each.
    pub(crate) fn pages(&mut self) -> u64 {
        let memory = self.instance.get_memory(&self.store, "memory");
        memory.map_or(0, |memory| memory.size(&self.store))
    }
}

/// Why a call of a guest's function did not return.
pub(crate) fn stop(error: &wasmi::Error) -> Stop {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.clone();
    }
    match error.as_trap_code() {
        Some(TrapCode::OutOfFuel) => Stop::Broken(Rule(5), "it ran on and on".to_owned()),
        _ => Stop::Trap(error.to_string()),
    }
}

/// A host's functions, which all its VMs share.
fn linker(profile: Profile) -> &'static Linker<Data> {
    static LINKERS: [OnceLock<Linker<Data>>; Profile::ALL.len()] =
        [const { OnceLock::new() }; Profile::ALL.len()];
    LINKERS[profile as usize].get_or_init(|| {
        let mut linker = Linker::new(engine());
        for import in imports::of(profile) {
            hostcalls::link(&mut linker, import);
        }
        wasi::link(&mut linker);
        linker
    })
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut config = Config::default();
        config.consume_fuel(true).set_max_recursion_depth(CALLS_DEEP);
        // Else the first call of a function would pay for its translation with its callback's fuel.
        config.compilation_mode(CompilationMode::Eager);
        Engine::new(&config)
    })
}

/// How deep a guest's calls nest before it traps.
const CALLS_DEEP: usize = 10_000;
