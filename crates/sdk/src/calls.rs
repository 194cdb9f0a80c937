//! What a workflow can do, as safe functions. Each is one host function of the ABI and a readable error.

use std::fmt::Display;
use std::io::{Error, ErrorKind};

use slung_abi::{Event, HttpMethod};

#[cfg(target_arch = "wasm32")]
use crate::guest as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::current as host;

/// What everything here answers: `std::io::Result`. Where the host refused, the error says what; in a guest the reason is
/// in the workflow's log on the server, since the ABI only tells that a call failed.
pub type Result<T> = std::io::Result<T>;

/// A live query that the host runs for this workflow. Never 0; ends with the workflow.
pub type QueryHandle = u64;

/// The method of [`writeback_http`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WritebackMethod {
    /// HTTP GET.
    GET,
    /// HTTP POST.
    POST,
    /// HTTP PUT.
    PUT,
    /// HTTP DELETE.
    DELETE,
}

impl From<WritebackMethod> for HttpMethod {
    fn from(method: WritebackMethod) -> Self {
        match method {
            WritebackMethod::GET => Self::Get,
            WritebackMethod::POST => Self::Post,
            WritebackMethod::PUT => Self::Put,
            WritebackMethod::DELETE => Self::Delete,
        }
    }
}

/// An aggregate as it stands after an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PollState {
    /// The aggregate's value.
    pub value: f64,
    /// The sum behind it, with AVG, SUM and COUNT.
    pub sum: Option<f64>,
    /// How many values are behind it, with AVG, SUM and COUNT.
    pub count: Option<u64>,
}

fn refused(what: impl Display, reason: impl Display) -> Error {
    Error::other(format!("{what}: {reason}"))
}

/// Starts a live query: from now on the host keeps the aggregate and tells each change to who polls the handle.
///
/// Use [`query!`](crate::query!) for a text that is known when the workflow is compiled.
///
/// # Errors
/// If the host refuses the query: it is malformed, has a range that no live query can have, or the workflow has too many
/// handles.
pub fn query_live(query: impl AsRef<str>) -> Result<QueryHandle> {
    let query = query.as_ref();
    host::query_live(query).map_err(|reason| refused(format_args!("live query `{query}`"), reason))
}

/// Asks for an aggregate of what is stored; for raw values, the latest one.
///
/// The ABI has only a number to give: 0.0 stands for a true zero, for AVG, MIN, MAX or SUM over no point at all, and for
/// a query that the host refused. Ask for the COUNT where that matters, and check the text with
/// [`query!`](crate::query!).
///
/// # Errors
/// None with this ABI; a later one may tell failure and zero apart.
pub fn query_history(query: impl AsRef<str>) -> Result<f64> {
    Ok(host::query_history(query.as_ref()))
}

/// Calls back with every update of a live query and a clone of `args`, for ever. While there is none the host puts the
/// workflow to sleep, which costs nothing.
///
/// ```no_run
/// use slung::prelude::*;
///
/// fn on_event(event: Event, limit: f64) -> Result<()> {
///     if event.value > limit {
///         println!("{} at {}", event.value, event.timestamp);
///     }
///     Ok(())
/// }
///
/// # fn main() -> Result<()> {
/// poll_handle(query_live(query!("MAX:temp:[]:[5m]"))?, on_event, 90.0)
/// # }
/// ```
///
/// # Errors
/// The callback's, and [`ErrorKind::InvalidData`] for an event that can't be read. Under
/// [`testing::Host`](crate::testing::Host) also the end of the script.
pub fn poll_handle<A: Clone>(
    handle: QueryHandle,
    mut callback: impl FnMut(Event, A) -> Result<()>,
    args: A,
) -> Result<()> {
    loop {
        if let Some(event) = poll_handle_once(handle)? {
            callback(event, args.clone())?;
        }
    }
}

/// The next update of a live query, or `None` if there is none within about a second: for a workflow with several
/// handles, or with something else to do.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for an event that can't be read. Under [`testing::Host`](crate::testing::Host) also the
/// end of the script. A handle that is unknown or freed is no error in this ABI: it has no updates.
pub fn poll_handle_once(handle: QueryHandle) -> Result<Option<Event>> {
    let Some(json) = host::poll_handle(handle)? else { return Ok(None) };
    let event = serde_json::from_slice(&json);
    event.map(Some).map_err(|error| Error::new(ErrorKind::InvalidData, format!("the host's event: {error}")))
}

/// The state of the aggregate after its next update, or `None` if there is none within about a second. It takes that
/// update, as [`poll_handle_once`] does.
///
/// # Errors
/// Those of [`poll_handle_once`].
pub fn poll_handle_state(handle: QueryHandle) -> Result<Option<PollState>> {
    let event = poll_handle_once(handle)?;
    Ok(event.map(|Event { value, sum, count, .. }| PollState { value, sum, count }))
}

/// Ends a live query, and drops its updates that were not polled.
///
/// # Errors
/// If the handle is unknown or already freed.
pub fn free_handle(handle: QueryHandle) -> Result<()> {
    host::free_handle(handle).map_err(|reason| refused(format_args!("freeing handle {handle}"), reason))
}

/// Writes an event: `timestamp` in microseconds since the Unix epoch (see [`unix_micros`]), and tags of which one is
/// `series=NAME` and names the series. It is visible to every query when this returns, and durable with the host's next
/// commit. Live queries see it too, this workflow's own included: take care not to feed what feeds you.
///
/// ```no_run
/// # fn main() -> slung::Result<()> {
/// slung::write_event(slung::unix_micros(), 0.7, ["series=temp.score", "sensor=1"])
/// # }
/// ```
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for what the ABI's text can't carry, and nothing is sent: a value that is not finite, a
/// tag that is empty, has a comma, or starts or ends with a blank, or not exactly one `series=NAME`. Another kind if the host refuses the event.
pub fn write_event(timestamp: i64, value: f64, tags: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
    if !value.is_finite() {
        return Err(unwritable(format_args!("the value {value} is not finite")));
    }
    let tags = comma_separated(tags)?;
    host::write_event(&timestamp.to_string(), &value.to_string(), &tags)
        .map_err(|reason| refused(format_args!("event of `{tags}` at {timestamp}"), reason))
}

fn unwritable(why: impl Display) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("event not written: {why}"))
}

fn comma_separated(tags: impl IntoIterator<Item = impl AsRef<str>>) -> Result<String> {
    let mut text = String::new();
    let mut names = 0;
    for tag in tags {
        let tag = tag.as_ref();
        if tag.is_empty() {
            return Err(unwritable("a tag is empty, which the host could not see"));
        }
        if tag.contains(',') {
            return Err(unwritable(format_args!("the tag `{tag}` has a comma, at which the host would split it")));
        }
        let name = tag.strip_prefix("series=");
        if name == Some("") {
            return Err(unwritable("`series=` has no name"));
        }
        if [tag, name.unwrap_or(tag)].iter().any(|part| part.trim().len() != part.len()) {
            return Err(unwritable(format_args!("`{tag}` starts or ends with a blank, which the host would drop")));
        }
        names += usize::from(name.is_some());
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(tag);
    }
    match names {
        1 => Ok(text),
        0 => Err(unwritable(format_args!("none of the tags `{text}` is `series=NAME`"))),
        _ => Err(unwritable(format_args!("the tags `{text}` name more than one series"))),
    }
}

/// Sends data to a producer, by the connection that its events came from. It arrives as a text message, or as a binary
/// one where it is not UTF-8.
///
/// # Errors
/// If it could not be handed to the connection: there is no such producer (any more), or its queue is full.
pub fn writeback_ws(producer: u64, data: impl AsRef<[u8]>) -> Result<()> {
    let data = data.as_ref();
    host::writeback_ws(producer, data)
        .map_err(|reason| refused(format_args!("{} bytes to producer {producer}", data.len()), reason))
}

/// Sends an HTTP request and waits for the response. Answers its body, or `None` for an empty one and for a request that
/// failed: this ABI can't tell the two apart, the workflow's log on the server can.
///
/// # Errors
/// None with this ABI; a later one may tell failure from an empty body.
pub fn writeback_http(
    url: impl AsRef<str>,
    body: impl AsRef<[u8]>,
    method: WritebackMethod,
) -> Result<Option<Vec<u8>>> {
    Ok(host::writeback_http(url.as_ref(), body.as_ref(), method.into()))
}

/// The time of day, microseconds since the Unix epoch; under [`testing::Host`](crate::testing::Host), that host's.
pub fn unix_micros() -> i64 {
    host::now_micros()
}
