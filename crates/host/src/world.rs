//! What a workflow can reach, as one trait: everything outside the sandbox is behind it.

use std::task::Waker;

use futures_util::future::BoxFuture;
use slung_abi::HttpMethod;

/// Why the world does not do what a workflow asked for, in words that the operator reads in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// An event that a workflow writes.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent<'a> {
    /// Microseconds since the Unix epoch, any i64.
    pub timestamp: i64,
    /// Finite.
    pub value: f64,
    /// The name of the series, not empty; else unchecked.
    pub series: &'a str,
    /// Its tags as the workflow gave them, none of them empty; else unchecked.
    pub tags: Vec<&'a str>,
}

/// The outside of one workflow: one value of it for each one that runs, so that what belongs to one can't be named by
/// another. It is dropped when the workflow has ended, before [`Workflow::wait`](crate::Workflow::wait) says so.
///
/// The methods are called from a thread that runs guests. The synchronous ones must answer at once and wait for nobody;
/// the futures must not block the thread either. The texts come from the guest, are UTF-8 and within the limits of
/// [`slung_abi::limits`], and nothing else is known of them. A future is dropped unfinished when the workflow is
/// stopped, and when it takes longer than
/// [`StartOptions::host_call_ms_max`](crate::StartOptions::host_call_ms_max): a live query that nobody gets the id of has
/// to be ended then.
pub trait World: Send + Sync + 'static {
    /// Registers a live query, which may have to read what is stored. The answer is its id, never 0.
    ///
    /// # Errors
    /// The query is malformed, not possible as a live query, there are too many, or the store can't be read.
    fn subscribe(&self, query: &str) -> BoxFuture<'_, Result<u64, Refusal>>;

    /// Ends a live query. Whether it was there.
    fn free(&self, id: u64) -> bool;

    /// Takes the next update of that live query: its JSON (see `slung_abi::EventRef`) is put at the end of `event`, which is
    /// empty and whose room is kept from call to call. The answer is when it arrived, by the clock of
    /// [`now_micros`](Self::now_micros).
    fn try_next(&self, id: u64, event: &mut Vec<u8>) -> Option<i64>;

    /// The clock that says when updates arrive: microseconds since any moment. It may jump; what is measured across that
    /// is wrong once, and nothing else.
    fn now_micros(&self) -> i64;

    /// Whether an update of that live query waits.
    fn has_waiting(&self, id: u64) -> bool;

    /// How many updates have been put in a queue of this workflow, or were merged into one, so far.
    fn arrivals(&self) -> u64;

    /// Wakes that waker when [`arrivals`](Self::arrivals) changes next. There is one at a time: a later call replaces an
    /// earlier one. A change between the last look at `arrivals` and this call need not wake it, so the caller looks
    /// again afterwards.
    fn wake_on_arrival(&self, waker: &Waker);

    /// The aggregate of a query over what is stored, 0.0 over nothing.
    ///
    /// # Errors
    /// The query is malformed, or the store can't be read.
    fn history(&self, query: &str) -> BoxFuture<'_, Result<f64, Refusal>>;

    /// Writes an event; done when it is visible to queries. Waits where storage is behind.
    ///
    /// # Errors
    /// The event is not valid, or storage refuses it.
    fn write(&self, event: NewEvent<'_>) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Hands a message to the connection of that producer.
    ///
    /// # Errors
    /// There is no such producer (any more), its queue is full, or this workflow may not answer it.
    fn writeback_ws(&self, producer: u64, data: &[u8]) -> Result<(), Refusal>;

    /// Sends an HTTP request; the answer is the response's body, whatever its status, at most
    /// [`slung_abi::limits::HTTP_RESPONSE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// The URL is not valid or not allowed, nobody answers in time, or the response is too long.
    fn writeback_http(&self, method: HttpMethod, url: &str, body: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Refusal>>;
}
