//! The way of every host call: faults that a test ordered, the call, and its count.

pub(crate) mod body;
pub(crate) mod control;
pub(crate) mod data;
pub(crate) mod dispatch;
pub(crate) mod headers;
pub(crate) mod metrics;
pub(crate) mod property;

use std::cell::RefMut;

use wasmi::{Caller, Extern, FuncType, Linker, Memory, Val, ValType};

use crate::imports::Import;
use crate::vm::{self, Data, Stop};
use crate::world::World;

/// A host function: its arguments in, a raw status out.
pub(crate) type Call = fn(&mut Cx<'_>, &[u64]) -> Result<u32, Stop>;

/// What a host call works on.
pub(crate) struct Cx<'a> {
    caller: Caller<'a, Data>,
}

pub(crate) fn link(linker: &mut Linker<Data>, import: Import) {
    let parameters = import.parameters.chars().map(|letter| match letter {
        'l' => ValType::I64,
        _ => ValType::I32,
    });
    let parameters: Vec<_> = parameters.collect();
    let kind = FuncType::new(parameters, [ValType::I32]);
    let run = move |caller: Caller<'_, Data>, given: &[Val], returned: &mut [Val]| {
        let arguments: Vec<u64> = given.iter().map(number).collect();
        let status = run(Cx { caller }, import, &arguments).map_err(wasmi::Error::host)?;
        returned[0] = Val::I32(status as i32);
        Ok(())
    };
    linker.func_new("env", import.name, kind, run).unwrap();
}

fn run(mut cx: Cx<'_>, import: Import, arguments: &[u64]) -> Result<u32, Stop> {
    let fault = cx.world().fault(import.name);
    let status = match fault {
        Some(status) => Ok(status),
        None => (import.call)(&mut cx, arguments),
    };
    let mut world = cx.world();
    world.cross(import.name);
    match &status {
        Ok(status) => {
            *world.statuses.entry((import.name, *status)).or_default() += 1;
            if import.name != "proxy_log" {
                world.note(format!("  {}{arguments:?} = {status}", import.name));
            }
        }
        Err(stop) => world.note(format!("  {}{arguments:?}: {stop}", import.name)),
    }
    drop(world);
    status
}

fn number(value: &Val) -> u64 {
    match value {
        Val::I32(value) => u64::from(*value as u32),
        Val::I64(value) => *value as u64,
        other => panic!("no parameter of the ABI is {other:?}"),
    }
}

/// The arguments as numbers of 32 bits.
pub(crate) fn words<const N: usize>(arguments: &[u64]) -> [u32; N] {
    let words: Vec<u32> = arguments.iter().map(|argument| *argument as u32).collect();
    words.try_into().unwrap()
}

impl Cx<'_> {
    pub(crate) fn world(&self) -> RefMut<'_, World> {
        self.caller.data().world.borrow_mut()
    }

    fn memory(&mut self) -> Result<Memory, Stop> {
        match self.caller.get_export("memory") {
            Some(Extern::Memory(memory)) => Ok(memory),
            _ => Err(Stop::Trap("the guest exports no memory".to_owned())),
        }
    }

    /// Bytes of the guest.
    pub(crate) fn read(&mut self, at: u32, size: u32) -> Result<Vec<u8>, Stop> {
        let memory = self.memory()?;
        let start = at as usize;
        let bytes = memory.data(&self.caller).get(start..start + size as usize);
        bytes.map(<[u8]>::to_vec).ok_or_else(|| Stop::Trap("a read out of memory".to_owned()))
    }

    pub(crate) fn read_text(&mut self, at: u32, size: u32) -> Result<String, Stop> {
        Ok(String::from_utf8_lossy(&self.read(at, size)?).into_owned())
    }

    pub(crate) fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Stop> {
        let memory = self.memory()?;
        memory
            .write(&mut self.caller, at as usize, bytes)
            .map_err(|_| Stop::Trap("a write out of memory".to_owned()))
    }

    pub(crate) fn write_number(&mut self, at: u32, number: u32) -> Result<(), Stop> {
        self.write(at, &number.to_le_bytes())
    }

    /// Gives bytes to the guest, in memory that the guest allocates; 0 for the status.
    pub(crate) fn give(&mut self, bytes: &[u8], data: u32, size: u32) -> Result<u32, Stop> {
        let mut place = 0;
        if !bytes.is_empty() {
            self.world().cross("proxy_on_memory_allocate");
            let names = ["proxy_on_memory_allocate", "malloc"];
            let export = names.iter().find_map(|name| self.caller.get_export(name));
            let Some(Extern::Func(allocate)) = export else {
                return Err(Stop::Trap("the guest allocates no memory".to_owned()));
            };
            let mut returned = [Val::I32(0)];
            allocate
                .call(&mut self.caller, &[Val::I32(bytes.len() as i32)], &mut returned)
                .map_err(|error| vm::stop(&error))?;
            place = number(&returned[0]) as u32;
            self.write(place, bytes)?;
        }
        self.write_number(data, place)?;
        self.write_number(size, u32::try_from(bytes.len()).unwrap())?;
        Ok(0)
    }
}
