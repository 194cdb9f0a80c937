//! An update as the event that its readers get, in JSON: made once for all of them.

use std::sync::{Arc, OnceLock};

use serde::{Serialize, Serializer};
use slung_abi::EventRef;
use slung_live::Update;
use slung_model::{ProducerId, SeriesKey};

/// JSON that is kept for further readers of an update, bytes: nearly all is shorter, and as much memory as it takes is held
/// while the slowest of them has not read it, for each update that waits for him. What is longer is made by each anew.
const SHARED_BYTES_MAX: usize = 1_024;

/// The tags of a series, as a list.
struct Tags<'a>(&'a SeriesKey);

impl Serialize for Tags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.tags())
    }
}

/// Producers by their numbers.
struct Ids<'a>(&'a [ProducerId]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|producer| producer.get()))
    }
}

/// Puts the event into an empty buffer. Where the buffer has room and nobody else reads the update, nothing is allocated.
pub(crate) fn write(update: &Update, event: &mut Vec<u8>) {
    match shared(update) {
        Some(json) => event.extend_from_slice(json),
        None => {
            make(update, event);
            share(update, || Arc::from(&event[..]), event.len());
        }
    }
}

/// The event.
pub(crate) fn json(update: &Update) -> Arc<[u8]> {
    if let Some(json) = shared(update) {
        return Arc::clone(json);
    }
    let mut event = Vec::new();
    make(update, &mut event);
    let json: Arc<[u8]> = event.into();
    share(update, || Arc::clone(&json), json.len());
    json
}

/// What another reader has made.
fn shared(update: &Update) -> Option<&Arc<[u8]>> {
    update.made().and_then(OnceLock::get)
}

/// Leaves it to the other readers, if there are any. Where two make it at once, that of the first is kept: nobody waits.
fn share(update: &Update, json: impl FnOnce() -> Arc<[u8]>, bytes: usize) {
    if let Some(place) = update.made()
        && bytes <= SHARED_BYTES_MAX
    {
        let _ = place.set(json());
    }
}

fn make(update: &Update, event: &mut Vec<u8>) {
    let (sum, count) = update.state.unzip();
    let (tags, producers) = (Tags(update.key()), Ids(&update.producers));
    let made = EventRef { timestamp: update.timestamp, value: update.value, tags, producers, sum, count };
    serde_json::to_writer(event, &made).expect("finite numbers and strings have a JSON form, and memory takes it");
}
