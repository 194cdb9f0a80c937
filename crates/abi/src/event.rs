//! The event: what `u_poll_handle` gives to the guest, as JSON.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// One update of a live query. A reader ignores fields that it does not know.
///
/// ```
/// use slung_abi::Event;
/// let json = r#"{"timestamp":1700000000000000,"value":21.5,"tags":["env=prod"],"producers":[7],"later":null}"#;
/// let event: Event = serde_json::from_str(json)?;
/// assert_eq!((event.value, event.producers.as_slice()), (21.5, [7].as_slice()));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Event {
    /// Of the newest event in this update, microseconds since the Unix epoch.
    pub timestamp: i64,
    /// The aggregate after the update, or the event's own value for a raw query; always finite.
    pub value: f64,
    /// The tags of the event that caused the update.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The connections whose events are in this update, each once, at most
    /// [`PRODUCERS_MAX`](crate::limits::PRODUCERS_MAX); empty for events that came by HTTP or from a workflow.
    #[serde(default)]
    pub producers: Vec<u64>,
    /// With AVG, SUM and COUNT: the sum behind the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// With AVG, SUM and COUNT: the number of values behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// An [`Event`] to be written, made of what others own. The fields are the same. `T` and `P` are whatever serde writes as a
/// list, such as slices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EventRef<T, P> {
    /// See [`Event::timestamp`].
    pub timestamp: i64,
    /// See [`Event::value`]. JSON has no way to write one that is not finite: check before.
    pub value: f64,
    /// See [`Event::tags`].
    pub tags: T,
    /// See [`Event::producers`].
    pub producers: P,
    /// See [`Event::sum`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// See [`Event::count`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}
