//! How much of anything crosses the border. Over a limit a call fails; nothing is cut to fit, unless it says so here.

/// The longest query, bytes: the query language's own limit.
pub const QUERY_BYTES_MAX: usize = 4_096;
/// The longest number as text, bytes: the smallest f64 written without an exponent has 1,077 characters, which is the
/// most that any f64 needs to be written exactly.
pub const NUMBER_BYTES_MAX: usize = 1_100;
/// The longest tags of `u_write_event`, bytes: `series=`, a name and 64 tags at the wire format's limits (1,024 bytes
/// each) and the commas are 66,631; the rest is room for blanks.
pub const TAGS_BYTES_MAX: usize = 68 * 1_024;
/// The most of `u_writeback_ws`, bytes: the longest message of the plain wire protocol, so that what goes out is not
/// bigger than what comes in.
pub const WS_BYTES_MAX: usize = 256 * 1_024;
/// The longest URL, bytes: what HTTP servers are asked to support at least (RFC 9110, section 4.1).
pub const URL_BYTES_MAX: usize = 8_000;
/// The longest body that `u_writeback_http` sends, bytes: as much as a message by WebSocket.
pub const HTTP_REQUEST_BYTES_MAX: usize = 256 * 1_024;
/// The longest body that `u_writeback_http` gives to the guest, bytes: an API's page of results, and a sixty-fourth of the
/// memory that a guest has. A longer response is a failure.
pub const HTTP_RESPONSE_BYTES_MAX: usize = 1_024 * 1_024;
/// The most producers in one event (closed connections go first): enough for every machine of a plant, and 32 KiB.
pub const PRODUCERS_MAX: usize = 4_096;
/// The longest event as JSON, bytes: 4,096 producers of up to 20 digits, 64 tags of 1,024 bytes in which every byte is
/// escaped as two, and the numbers are just under 220,000.
pub const EVENT_BYTES_MAX: usize = 256 * 1_024;
/// The longest sleep of `u_poll_handle` unless configured otherwise, milliseconds: a guest that does something of its
/// own between polls gets to do it once a second, and 1,000 idle ones cost 1 % of a core.
pub const POLL_SLEEP_MS_MAX: u64 = 1_000;
/// Updates that wait for one handle unless configured otherwise: one second of a stream of a thousand events a second.
pub const QUEUE_UPDATES_MAX: usize = 1_024;
/// Handles that one workflow may hold at a time unless configured otherwise: dashboards have tens of queries, and a loop
/// that forgets to free is noticed early.
pub const HANDLES_MAX: usize = 100;
