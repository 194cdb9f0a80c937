//! The host as a guest reaches it: Regions out, Regions in. On other machines `testing` stands in its place, with the
//! same functions.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use slung_abi::{HttpMethod, OK};

use crate::Region;
use crate::imports::{
    u_free_handle, u_poll_handle, u_query_history, u_query_live, u_write_event, u_writeback_http, u_writeback_ws,
};

type Outcome<T> = Result<T, Cow<'static, str>>;

/// The ABI tells that a call failed, and not why.
const REFUSED: Cow<'static, str> =
    Cow::Borrowed("the host refused, and the reason is in this workflow's log on the server");

fn accepted(code: i32) -> Outcome<()> {
    if code == OK { Ok(()) } else { Err(REFUSED) }
}

/// The bytes that the host answered, or `None` for the null that stands for nothing.
#[expect(unsafe_code, reason = "takes over what the host reserved")]
fn take(answer: *mut Region<'static>) -> Option<Vec<u8>> {
    if answer.is_null() {
        return None;
    }
    // SAFETY: only called with what a host function has just answered. By the ABI that is the address of a Region which
    // the host reserved, with its data, through this module's `allocate`, has written, and gives to the guest.
    Some(unsafe { Region::consume(answer) })
}

pub(crate) fn query_live(query: &str) -> Outcome<u64> {
    match u_query_live(&Region::build(query.as_bytes())) {
        0 => Err(REFUSED),
        handle => Ok(handle),
    }
}

pub(crate) fn query_history(query: &str) -> f64 {
    u_query_history(&Region::build(query.as_bytes()))
}

pub(crate) fn poll_handle(handle: u64) -> std::io::Result<Option<Vec<u8>>> {
    Ok(take(u_poll_handle(handle)))
}

pub(crate) fn free_handle(handle: u64) -> Outcome<()> {
    accepted(u_free_handle(handle))
}

pub(crate) fn write_event(timestamp: &str, value: &str, tags: &str) -> Outcome<()> {
    let [timestamp, value, tags] = [timestamp, value, tags].map(|text| Region::build(text.as_bytes()));
    accepted(u_write_event(&timestamp, &value, &tags))
}

pub(crate) fn writeback_ws(producer: u64, data: &[u8]) -> Outcome<()> {
    accepted(u_writeback_ws(producer, &Region::build(data)))
}

pub(crate) fn writeback_http(url: &str, body: &[u8], method: HttpMethod) -> Option<Vec<u8>> {
    take(u_writeback_http(&Region::build(url.as_bytes()), &Region::build(body), method.code()))
}

pub(crate) fn now_micros() -> i64 {
    // WASI's clock counts unsigned nanoseconds since the epoch: never before it, and not out of range for 290,000 years.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
