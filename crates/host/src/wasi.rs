//! WASI preview 1 as workflows get it: clocks, random numbers, arguments and environment as given, standard output and
//! error as log lines, an empty standard input; no files, no sockets.

use slung_abi::{WASI_MODULE, span};
use wasmtime::{Caller, Linker};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{self, WasiP1Ctx};

use crate::guest::Guest;
use crate::options::{StartOptions, WASI_CALL_BYTES_MAX};

/// The most that one `fd_write` takes, bytes; it says how much it took, and C libraries write the rest then. So a guest
/// that prints its whole memory lets others run in between.
const WRITE_BYTES_MAX: usize = 16 * 1024;
/// The most pieces that one `fd_write` takes: what `IOV_MAX` is elsewhere.
const PIECES_MAX: u32 = 1_024;

// The numbers of WASI preview 1.
const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const FAULT: i32 = 21;
const INVAL: i32 = 28;

pub(crate) fn context(options: &StartOptions) -> WasiP1Ctx {
    WasiCtxBuilder::new().args(&options.args).envs(&options.env).max_random_size(WASI_CALL_BYTES_MAX as u64).build_p1()
}

/// Adds all of WASI preview 1. `fd_write` is ours: wasmtime's traps where its sink is full, and copies and awaits each 4
/// KiB.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    p1::add_to_linker_async(linker, |guest: &mut Guest| &mut guest.wasi)?;
    linker.allow_shadowing(true);
    linker.func_wrap(WASI_MODULE, "fd_write", fd_write)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Prints to 1 and 2, which is all that a guest can write to. Never traps.
fn fd_write(mut caller: Caller<'_, Guest>, fd: u32, pieces: u32, pieces_len: u32, written_at: u32) -> i32 {
    if !matches!(fd, 1 | 2) {
        return BADF;
    }
    if pieces_len > PIECES_MAX {
        return INVAL;
    }
    let Ok(memory) = crate::guest::memory(&mut caller) else { return FAULT };
    let (memory, guest) = memory.data_and_store_mut(&mut caller);
    let Some(list) = span(pieces, pieces_len * 8, memory.len()) else { return FAULT };
    let Some(written_at) = span(written_at, 4, memory.len()) else { return FAULT };

    let mut written = 0;
    for piece in memory[list].as_chunks::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *piece;
        let Some(piece) = span(u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]), memory.len()) else {
            return FAULT;
        };
        let bytes = &memory[piece];
        let taken = &bytes[..bytes.len().min(WRITE_BYTES_MAX - written)];
        guest.printer.print(fd, taken);
        written += taken.len();
    }
    memory[written_at].copy_from_slice(&(written as u32).to_le_bytes());
    SUCCESS
}
