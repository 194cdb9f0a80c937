//! What [`event`] makes of an update is, byte by byte, what the contract's own type is written as.

use std::sync::Arc;

use proptest::prelude::*;
use slung_abi::Event;
use slung_live::{HandleId, Live, Options, Subscriber, Update};
use slung_model::{Point, ProducerId, Query, SeriesId, SeriesKey};

use crate::event;

/// A query over one series, with so many readers.
struct Read {
    live: Live,
    key: Arc<SeriesKey>,
    readers: Vec<(Arc<Subscriber>, HandleId)>,
}

impl Read {
    fn new(query: &str, tags: &[String], readers: usize, queue_updates_max: usize) -> Self {
        let mut live = Live::new(Options { queue_updates_max, ..Options::default() });
        let query = Query::parse(query).unwrap();
        let readers = (0..readers).map(|_| {
            let subscriber = live.subscriber();
            let handle = live.subscribe(&subscriber, &query, [SeriesId(0)], [], 0).unwrap();
            (subscriber, handle)
        });
        let readers = readers.collect();
        Self { live, key: Arc::new(SeriesKey::new("temp", tags).unwrap()), readers }
    }

    fn write(&mut self, producer: Option<u64>, timestamp: i64, value: f64) {
        let point = Point { series: SeriesId(0), timestamp, value };
        let keys = |_| Some(Arc::clone(&self.key));
        drop(self.live.apply(producer.and_then(ProducerId::new), &[point], 0, &keys));
    }

    fn next(&self, reader: usize) -> Update {
        let (subscriber, handle) = &self.readers[reader];
        subscriber.try_next(*handle).unwrap()
    }
}

/// As the contract has it, with everything copied out of the update.
fn expected(update: &Update) -> Vec<u8> {
    let (sum, count) = update.state.unzip();
    let event = Event {
        timestamp: update.timestamp,
        value: update.value,
        tags: update.key().tags().map(str::to_owned).collect(),
        producers: update.producers.iter().map(|producer| producer.get()).collect(),
        sum,
        count,
    };
    serde_json::to_vec(&event).unwrap()
}

fn written(update: &Update) -> Vec<u8> {
    let mut event = Vec::new();
    event::write(update, &mut event);
    event
}

proptest! {
    /// By one reader or several, merged or not, in whichever of the two forms it is asked for first.
    #[test]
    fn the_bytes_are_those_of_the_contract(
        query in prop::sample::select(vec!["temp:[]", "AVG:temp:[]", "SUM:temp:[]", "COUNT:temp:[]", "MAX:temp:[]", "LAST:temp:[]"]),
        tags in prop::collection::vec("[^,\\p{Cc}]{0,9}[^,\\p{Cc}\\s]|[\"\\\\a\u{2028}]{1,3}", 0..4),
        writes in prop::collection::vec((prop::option::of(1..u64::MAX), any::<i64>(), -1e300..1e300_f64), 1..6),
        readers in 1..4_usize, queue_updates_max in 1..4_usize, as_bytes in any::<bool>(),
    ) {
        let mut read = Read::new(query, &tags, readers, queue_updates_max);
        for (producer, timestamp, value) in writes {
            read.write(producer, timestamp, value);
        }
        for reader in 0..readers {
            let (subscriber, handle) = &read.readers[reader];
            while let Some(update) = subscriber.try_next(*handle) {
                let expected = expected(&update);
                if as_bytes {
                    prop_assert_eq!(&*event::json(&update), &*expected);
                }
                prop_assert_eq!(written(&update), &*expected);
                prop_assert_eq!(&*event::json(&update), &*expected);
            }
        }
    }
}

#[test]
fn it_is_made_once_for_all_readers_of_an_update() {
    let mut read = Read::new("AVG:temp:[]", &["a".into()], 3, 1);
    read.write(Some(7), 1, 1.5);
    let [first, second] = [0, 1].map(|reader| read.next(reader));
    assert!(first.made().unwrap().get().is_none());
    let made = event::json(&first);
    assert!(Arc::ptr_eq(&made, &event::json(&second)), "the second one's is the first one's");
    assert_eq!(written(&second), *made);

    // The third has not read, and is told of both at once: that is no longer what the others were told.
    read.write(Some(9), 2, 2.5);
    let [second, third] = [1, 2].map(|reader| read.next(reader));
    assert!(third.made().is_none());
    event::json(&second);
    assert_eq!((written(&second), written(&third)), (expected(&second), expected(&third)));
    assert_ne!(written(&second), written(&third));
}

#[test]
fn what_is_long_is_not_kept_and_one_reader_shares_with_nobody() {
    let mut read = Read::new("temp:[]", &["a".repeat(1_000)], 2, 1);
    read.write(Some(7), 1, 1.5);
    let update = read.next(0);
    assert_eq!(written(&update), expected(&update));
    assert!(update.made().unwrap().get().is_none());

    let mut read = Read::new("temp:[]", &[], 1, 1);
    read.write(Some(7), 1, 1.5);
    assert!(read.next(0).made().is_none());
}
