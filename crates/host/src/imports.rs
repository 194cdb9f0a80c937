//! The seven host functions: arguments in, the world asked, the answer out. None of them traps.

use std::time::{Duration, Instant};

use slung_abi::{FAILED, HostFunction, HttpMethod, IMPORT_MODULE, OK, limits};
use wasmtime::{Caller, Linker};

use crate::guest::{Failed, Guest, argument, give, open, text, within};
use crate::poll::Step;
use crate::text::{event_tags, timestamp, value};
use crate::world::NewEvent;

type Call<'a> = Caller<'a, Guest>;

/// Adds the functions of `env`. The ones that wait, or call the guest's `allocate`, are asynchronous.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>, poll_sleep: Duration) -> wasmtime::Result<()> {
    use HostFunction::{FreeHandle, PollHandle, QueryHistory, QueryLive, WriteEvent, WritebackHttp, WritebackWs};

    linker.func_wrap_async(IMPORT_MODULE, QueryLive.name(), |mut caller: Call<'_>, (query,): (u32,)| {
        Box::new(async move {
            let result = query_live(&mut caller, query).await;
            caller.data_mut().settle(QueryLive, result, 0)
        })
    })?;
    linker.func_wrap_async(IMPORT_MODULE, QueryHistory.name(), |mut caller: Call<'_>, (query,): (u32,)| {
        Box::new(async move {
            let result = query_history(&mut caller, query).await;
            caller.data_mut().settle(QueryHistory, result, 0.0)
        })
    })?;
    linker.func_wrap_async(IMPORT_MODULE, PollHandle.name(), move |mut caller: Call<'_>, (handle,): (u64,)| {
        Box::new(async move {
            let result = poll_handle(&mut caller, handle, poll_sleep).await;
            caller.data_mut().settle(PollHandle, result, 0)
        })
    })?;
    linker.func_wrap(IMPORT_MODULE, FreeHandle.name(), |mut caller: Call<'_>, handle: u64| {
        let result = free_handle(&mut caller, handle);
        caller.data_mut().settle(FreeHandle, result, FAILED)
    })?;
    linker.func_wrap_async(
        IMPORT_MODULE,
        WriteEvent.name(),
        |mut caller: Call<'_>, (timestamp, value, tags): (u32, u32, u32)| {
            Box::new(async move {
                let result = write_event(&mut caller, timestamp, value, tags).await;
                caller.data_mut().settle(WriteEvent, result, FAILED)
            })
        },
    )?;
    linker.func_wrap(IMPORT_MODULE, WritebackWs.name(), |mut caller: Call<'_>, producer: u64, data: u32| {
        let result = writeback_ws(&mut caller, producer, data);
        caller.data_mut().settle(WritebackWs, result, FAILED)
    })?;
    linker.func_wrap_async(
        IMPORT_MODULE,
        WritebackHttp.name(),
        |mut caller: Call<'_>, (url, body, method): (u32, u32, i32)| {
            Box::new(async move {
                let result = writeback_http(&mut caller, url, body, method).await;
                caller.data_mut().settle(WritebackHttp, result, 0)
            })
        },
    )?;
    Ok(())
}

/// Registers a live query.
///
/// # Errors
/// The Region, the query, or one handle too many.
async fn query_live(caller: &mut Call<'_>, query: u32) -> Result<u64, Failed> {
    let memory = open(caller)?;
    let (memory, guest) = memory.data_and_store_mut(caller);
    let query = text(memory, query, "query", limits::QUERY_BYTES_MAX)?;
    guest.turn.rise().await;
    let begin = Instant::now();
    let subscribed = guest.handles.subscribe(query, guest.host_call_ms_max).await;
    guest.has_read(begin.elapsed());
    Ok(subscribed?)
}

/// The aggregate over what is stored.
///
/// # Errors
/// The Region, the query, or the store.
async fn query_history(caller: &mut Call<'_>, query: u32) -> Result<f64, Failed> {
    let memory = open(caller)?;
    let (memory, guest) = memory.data_and_store_mut(caller);
    let query = text(memory, query, "query", limits::QUERY_BYTES_MAX)?;
    guest.turn.rise().await;
    let begin = Instant::now();
    let answer = within(guest.host_call_ms_max, guest.world.history(query)).await;
    guest.has_read(begin.elapsed());
    Ok(answer?)
}

/// The handle's next event, now or within the sleep.
///
/// # Errors
/// An unknown handle (after its sleep), or a guest without room. An event for which there is no room is lost: at most
/// once is what live delivery promises, and to keep it would let the guest ask again and again without ever sleeping.
async fn poll_handle(caller: &mut Call<'_>, handle: u64, sleep: Duration) -> Result<u32, Failed> {
    open(caller)?;
    let guest = caller.data_mut();
    guest.end_reaction();
    guest.handles.pass_gate().await.map_err(|relieved| Failed::Guest(relieved.into()))?;
    let arrived = match guest.handles.poll(handle) {
        Step::Give(arrived) => Some(arrived),
        Step::Nothing => None,
        Step::Sleep(mut waits) => {
            guest.counters.sleeps.add(1);
            guest.counters.asleep.set(1);
            waits.run(&*guest.world, &guest.ticker, sleep).await;
            guest.counters.asleep.set(0);
            guest.handles.after_sleep(&waits)
        }
    };
    let Some(arrived) = arrived else {
        guest.handles.check(handle)?;
        return Ok(0);
    };
    let event = guest.handles.take_event();
    let (bytes, bytes_max) = (event.len(), limits::EVENT_BYTES_MAX);
    if bytes > bytes_max {
        return Err(format!("an event of {bytes} bytes, at most {bytes_max} are given").into());
    }
    let given = give(caller, &event).await;
    let guest = caller.data_mut();
    guest.handles.put_back(event);
    let address = given?;
    guest.begin_reaction(arrived);
    guest.counters.events.add(1);
    guest.counters.event_bytes.add(bytes as u64);
    Ok(address)
}

/// Ends a live query.
///
/// # Errors
/// An unknown handle.
#[inline]
fn free_handle(caller: &mut Call<'_>, handle: u64) -> Result<i32, Failed> {
    open(caller)?;
    caller.data_mut().handles.free(handle)?;
    Ok(OK)
}

/// Writes an event.
///
/// # Errors
/// A Region, a number, the tags, one event too many in a second, or the store.
async fn write_event(caller: &mut Call<'_>, time: u32, number: u32, tags: u32) -> Result<i32, Failed> {
    let memory = open(caller)?;
    let (memory, guest) = memory.data_and_store_mut(caller);
    let timestamp = timestamp(text(memory, time, "timestamp", limits::NUMBER_BYTES_MAX)?)?;
    let value = value(text(memory, number, "value", limits::NUMBER_BYTES_MAX)?)?;
    let (series, tags) = event_tags(text(memory, tags, "tags", limits::TAGS_BYTES_MAX)?)?;
    guest.admit_write()?;
    let event = NewEvent { timestamp, value, series, tags };
    let was_low = guest.turn.rise().await;
    let written = within(guest.host_call_ms_max, guest.world.write(event)).await;
    if was_low {
        // It goes on as it came: a guest that computes does not get ahead by writing.
        guest.turn.end(None).await;
    }
    written?;
    Ok(OK)
}

/// Hands a message to a producer's connection.
///
/// # Errors
/// The Region, or the connection.
#[inline]
fn writeback_ws(caller: &mut Call<'_>, producer: u64, data: u32) -> Result<i32, Failed> {
    let memory = open(caller)?;
    let (memory, guest) = memory.data_and_store_mut(caller);
    let data = argument(memory, data, "data", limits::WS_BYTES_MAX)?;
    guest.world.writeback_ws(producer, data).map_err(|refusal| Failed::Call(refusal.0))?;
    Ok(OK)
}

/// Sends an HTTP request and gives the response's body.
///
/// # Errors
/// A Region, the method, one request too many in a second, the request itself, too long a response, or a guest without
/// room for it.
async fn writeback_http(caller: &mut Call<'_>, url: u32, body: u32, method: i32) -> Result<u32, Failed> {
    let memory = open(caller)?;
    let (memory, guest) = memory.data_and_store_mut(&mut *caller);
    let method = HttpMethod::from_code(method).ok_or_else(|| format!("method {method} is none of 0 to 3"))?;
    let url = text(memory, url, "URL", limits::URL_BYTES_MAX)?;
    let body = argument(memory, body, "body", limits::HTTP_REQUEST_BYTES_MAX)?.to_vec();
    guest.admit_http_call()?;
    guest.turn.rise().await;
    let response = within(guest.host_call_ms_max, guest.world.writeback_http(method, url, body)).await?;
    let (bytes, bytes_max) = (response.len(), limits::HTTP_RESPONSE_BYTES_MAX);
    if bytes > bytes_max {
        return Err(format!("a response of {bytes} bytes, at most {bytes_max} are given").into());
    }
    give(caller, &response).await
}
