//! The few functions of WASI preview 1 that a filter imports, on the virtual clock and the seed.

use wasmi::{Caller, Extern, Linker};

use crate::vm::{Data, Stop};
use crate::world::Log;

/// When the virtual clock stands at 0, in ms since 1970-01-01 UTC.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

pub(crate) fn link(linker: &mut Linker<Data>) {
    const MODULE: &str = "wasi_snapshot_preview1";
    for name in ["args_sizes_get", "environ_sizes_get"] {
        linker
            .func_wrap(MODULE, name, |mut caller: Caller<'_, Data>, count: u32, size: u32| {
                write(&mut caller, count, &[0; 4]);
                write(&mut caller, size, &[0; 4]);
                0_u32
            })
            .unwrap();
    }
    for name in ["args_get", "environ_get"] {
        linker.func_wrap(MODULE, name, |_: u32, _: u32| 0_u32).unwrap();
    }
    linker.func_wrap(MODULE, "sched_yield", || 0_u32).unwrap();
    linker.func_wrap(MODULE, "clock_time_get", clock_time_get).unwrap();
    linker
        .func_wrap(MODULE, "clock_res_get", |mut caller: Caller<'_, Data>, _: u32, at: u32| {
            write(&mut caller, at, &1_000_000_u64.to_le_bytes());
            0_u32
        })
        .unwrap();
    linker.func_wrap(MODULE, "random_get", random_get).unwrap();
    linker.func_wrap(MODULE, "fd_write", fd_write).unwrap();
    linker
        .func_wrap(MODULE, "proc_exit", |code: u32| -> Result<(), wasmi::Error> {
            Err(wasmi::Error::host(Stop::Trap(format!("proc_exit({code})"))))
        })
        .unwrap();
}

fn clock_time_get(mut caller: Caller<'_, Data>, clock: u32, _precision: u64, at: u32) -> u32 {
    caller.data().world.borrow_mut().cross("clock_time_get");
    let now_ms = caller.data().world.borrow().now_ms;
    let ms = if clock == 0 { EPOCH_MS + now_ms } else { now_ms };
    write(&mut caller, at, &(ms * 1_000_000).to_le_bytes());
    0
}

fn random_get(mut caller: Caller<'_, Data>, at: u32, size: u32) -> u32 {
    let mut bytes = vec![0; size as usize];
    caller.data().world.borrow_mut().cross("random_get");
    caller.data().world.borrow_mut().rng.fill(&mut bytes);
    write(&mut caller, at, &bytes);
    0
}

/// What a guest prints, a panic's message above all, goes to the log.
fn fd_write(mut caller: Caller<'_, Data>, _fd: u32, vectors: u32, count: u32, at: u32) -> u32 {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return 8 };
    let mut text = Vec::new();
    let number =
        |data: &[u8], at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap()) as usize;
    for vector in 0..count as usize {
        let data = memory.data(&caller);
        let place = vectors as usize + vector * 8;
        let (start, size) = (number(data, place), number(data, place + 4));
        text.extend_from_slice(&data[start..start + size]);
    }
    let size = u32::try_from(text.len()).unwrap();
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    let mut world = caller.data().world.borrow_mut();
    world.note(format!("stdout: {text}"));
    world.logs.push(Log { level: 5, text });
    drop(world);
    write(&mut caller, at, &size.to_le_bytes());
    0
}

fn write(caller: &mut Caller<'_, Data>, at: u32, bytes: &[u8]) {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return };
    memory.write(caller, at as usize, bytes).unwrap();
}
