//! The host as a workflow reaches it off wasm32: the in-memory one under which this thread runs. The functions are those
//! of `guest`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use slung_abi::HttpMethod;
use slung_model::{Clock, SystemClock};

use super::world::World;

type Outcome<T> = Result<T, Cow<'static, str>>;
type Shared = Rc<RefCell<World>>;

const NO_HOST: &str = "there is no host here: run the module in a Slung server, or natively under slung::testing::Host";

thread_local! {
    static CURRENT: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// Puts the host before it back when it goes, by return or by panic.
struct Restore(Option<Shared>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// Runs something with that host as this thread's.
pub(super) fn within<T>(world: &Shared, run: impl FnOnce() -> T) -> T {
    let _restore = Restore(CURRENT.replace(Some(Rc::clone(world))));
    run()
}

fn with<T>(ask: impl FnOnce(&mut World) -> T) -> Option<T> {
    CURRENT.with_borrow(|current| current.as_ref().map(|world| ask(&mut world.borrow_mut())))
}

/// The world's answer; what it refuses also goes to its log.
fn call<T>(ask: impl FnOnce(&mut World) -> Result<T, String>) -> Outcome<T> {
    let logged = |world: &mut World| ask(world).inspect_err(|reason| world.log(reason));
    with(logged).unwrap_or_else(|| Err(NO_HOST.to_owned())).map_err(Cow::Owned)
}

pub(crate) fn query_live(query: &str) -> Outcome<u64> {
    call(|world| world.query_live(query))
}

pub(crate) fn query_history(query: &str) -> f64 {
    call(|world| world.query_history(query)).ok().flatten().unwrap_or(0.0)
}

pub(crate) fn poll_handle(handle: u64) -> io::Result<Option<Vec<u8>>> {
    with(|world| world.poll(handle)).unwrap_or_else(|| Err(io::Error::other(NO_HOST)))
}

pub(crate) fn free_handle(handle: u64) -> Outcome<()> {
    call(|world| world.free_handle(handle))
}

pub(crate) fn write_event(timestamp: &str, value: &str, tags: &str) -> Outcome<()> {
    call(|world| world.write_event(timestamp, value, tags))
}

pub(crate) fn writeback_ws(producer: u64, data: &[u8]) -> Outcome<()> {
    call(|world| world.writeback_ws(producer, data))
}

pub(crate) fn writeback_http(url: &str, body: &[u8], method: HttpMethod) -> Option<Vec<u8>> {
    call(|world| world.writeback_http(url, body, method)).ok().filter(|body| !body.is_empty())
}

pub(crate) fn now_micros() -> i64 {
    with(|world| world.now()).unwrap_or_else(|| SystemClock.now_micros())
}
