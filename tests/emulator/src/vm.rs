//! A wasm VM: the guest's instance, its memory, and its budget.

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use wasmtime::{Config, Engine, Instance, Linker, Module, OptLevel, Store, Trap, Val};

use crate::hostcalls;
use crate::imports;
use crate::profile::Profile;
use crate::rule::Rule;
use crate::wasi;
use crate::world::Shared;

/// A compiled guest.
#[derive(Clone)]
pub struct Guest(Module);

/// What host calls find in a VM.
pub(crate) struct Data {
    pub(crate) world: Shared,
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

impl std::error::Error for Stop {}

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
        Self(Module::from_file(engine(), path).unwrap())
    }

    /// A guest from WebAssembly text.
    ///
    /// # Panics
    /// When it does not parse.
    #[must_use]
    pub fn wat(text: &str) -> Self {
        Self(Module::new(engine(), text).unwrap_or_else(|error| panic!("{error:?}\n{text}")))
    }

    /// The names of its imports, with their modules.
    #[must_use]
    pub fn imports(&self) -> Vec<(String, String)> {
        let names = |import: wasmtime::ImportType<'_>| {
            (import.module().to_owned(), import.name().to_owned())
        };
        self.0.imports().map(names).collect()
    }

    /// Why a host would not load it; none when it does.
    #[must_use]
    pub fn load_error(&self, profile: Profile) -> Option<String> {
        let linked = linker(profile).instantiate_pre(&self.0);
        linked.err().map(|error| format!("{error:?}"))
    }
}

impl Vm {
    pub(crate) fn new(guest: &Guest, world: &Shared) -> Result<Self, String> {
        let (profile, fuel) = {
            let world = world.borrow();
            (world.profile, world.settings.fuel)
        };
        let mut store = Store::new(engine(), Data { world: world.clone() });
        store.set_fuel(fuel).unwrap();
        let instance = linker(profile)
            .instantiate(&mut store, &guest.0)
            .map_err(|error| format!("{error:?}"))?;
        Ok(Self { store, instance })
    }

    pub(crate) fn has(&mut self, name: &str) -> bool {
        self.instance.get_func(&mut self.store, name).is_some()
    }

    /// Calls an export; none when the guest does not have it, or it returns nothing.
    pub(crate) fn call(&mut self, name: &str, arguments: &[u32]) -> Result<Option<u32>, Stop> {
        let Some(function) = self.instance.get_func(&mut self.store, name) else {
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
        let memory = self.instance.get_memory(&mut self.store, "memory");
        memory.map_or(0, |memory| memory.size(&self.store))
    }
}

fn stop(error: &wasmtime::Error) -> Stop {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.clone();
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Stop::Broken(Rule(5), "it ran on and on".to_owned()),
        _ => Stop::Trap(format!("{error:?}")),
    }
}

fn linker(profile: Profile) -> Linker<Data> {
    let mut linker = Linker::new(engine());
    for import in imports::of(profile) {
        hostcalls::link(&mut linker, import);
    }
    wasi::link(&mut linker);
    linker
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut config = Config::new();
        config.consume_fuel(true).cranelift_opt_level(OptLevel::None);
        Engine::new(&config).unwrap()
    })
}
