//! What a live query tells: one update, and the connections whose events are in it.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use slung_model::{ProducerId, SeriesKey};

/// The most producers that an update names: what 4,096 ids are to a guest is about 32 KiB of JSON.
pub const PRODUCERS_MAX: usize = 4096;

/// The most connections that are remembered as open. Many more than a process has; past it the oldest counts as closed.
const OPEN_MAX: usize = 1 << 20;

/// A registered live query. Never 0, and never used again while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(NonZeroU64);

impl HandleId {
    /// The handle of that number; `None` for 0, which is no handle.
    pub fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// One that nobody has. They only need to differ, so no order with other memory is asked for.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        Self(NonZeroU64::new(id).expect("2^64 handles take longer than any process runs"))
    }
}

impl fmt::Display for HandleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a handle delivers.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Of the newest event in it, microseconds since the Unix epoch. Where time caused the update and no event did: of the
    /// newest event that the window has seen.
    pub timestamp: i64,
    /// The aggregate after the update, or the event's own value for a raw query. Always finite.
    pub value: f64,
    /// The connections whose events are in it. None where time caused it.
    pub producers: Producers,
    /// Sum and count behind the value, for AVG, SUM and COUNT.
    pub state: Option<(f64, u64)>,
    /// When it arrived, as `now` of the call that caused it: microseconds since the Unix epoch. Of one that others were merged
    /// into, when the oldest did.
    pub arrived: i64,
    told: Told,
}

/// What an update says of its series.
#[derive(Clone)]
enum Told {
    /// To one reader, or to one after a merge: nothing is allocated.
    One(Arc<SeriesKey>),
    /// To several.
    Several(Arc<Shared>),
}

/// What the readers of one update have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    key: Arc<SeriesKey>,
    made: OnceLock<Arc<[u8]>>,
}

impl Shared {
    pub(crate) fn new(key: &Arc<SeriesKey>) -> Arc<Self> {
        Arc::new(Self { key: Arc::clone(key), made: OnceLock::new() })
    }
}

impl Told {
    fn key(&self) -> &Arc<SeriesKey> {
        match self {
            Self::One(key) => key,
            Self::Several(shared) => &shared.key,
        }
    }
}

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

/// What an update is made of: borrowed, so that each reader's own is put together where it is needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    /// As [`Update::timestamp`].
    pub(crate) timestamp: i64,
    /// As [`Update::value`].
    pub(crate) value: f64,
    /// As [`Update::key`].
    pub(crate) key: &'a Arc<SeriesKey>,
    /// Where there are several readers: what they have in common, of that series.
    pub(crate) shared: Option<&'a Arc<Shared>>,
    /// The connection whose event caused it. `None` where time did, or the event came by none.
    pub(crate) producer: Option<ProducerId>,
    /// As [`Update::state`].
    pub(crate) state: Option<(f64, u64)>,
    /// As [`Update::arrived`].
    pub(crate) arrived: i64,
}

impl Change<'_> {
    /// One reader's own.
    pub(crate) fn update(&self) -> Update {
        Update {
            timestamp: self.timestamp,
            value: self.value,
            producers: Producers::from(self.producer),
            state: self.state,
            arrived: self.arrived,
            told: match self.shared {
                Some(shared) => Told::Several(Arc::clone(shared)),
                None => Told::One(Arc::clone(self.key)),
            },
        }
    }
}

impl Update {
    /// The series of the event that caused it, with its tags. Where time caused it: of the window's newest event.
    pub fn key(&self) -> &Arc<SeriesKey> {
        self.told.key()
    }

    /// A place that all readers have who were told exactly this, for bytes that one of them makes of it and the others need
    /// not make again; what is in it depends on nothing but the update. `None` where nobody else was told: there is one reader,
    /// or others were merged into this one.
    pub fn made(&self) -> Option<&OnceLock<Arc<[u8]>>> {
        match &self.told {
            Told::One(_) => None,
            Told::Several(shared) => Some(&shared.made),
        }
    }

    /// Becomes the later one, without losing whose events were in it, nor since when somebody is to hear of it.
    pub(crate) fn merge(&mut self, later: Self, open: &OpenProducers, scanned: &mut u64) {
        self.timestamp = self.timestamp.max(later.timestamp);
        self.value = later.value;
        self.told = Told::One(Arc::clone(later.key()));
        self.state = later.state;
        for producer in later.producers.iter() {
            self.producers.add(*producer, open, scanned);
        }
    }
}

/// Connections in ascending order, each once, at most [`PRODUCERS_MAX`]. A slice to whoever reads it; for one producer,
/// as nearly every update has it, nothing is allocated.
#[derive(Clone, Default)]
pub struct Producers(Few);

#[derive(Clone, Default)]
enum Few {
    #[default]
    None,
    One(ProducerId),
    Many(Vec<ProducerId>),
}

impl Deref for Producers {
    type Target = [ProducerId];

    fn deref(&self) -> &[ProducerId] {
        match &self.0 {
            Few::None => &[],
            Few::One(producer) => std::slice::from_ref(producer),
            Few::Many(producers) => producers,
        }
    }
}

impl PartialEq for Producers {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Producers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl From<Option<ProducerId>> for Producers {
    fn from(producer: Option<ProducerId>) -> Self {
        Self(producer.map_or(Few::None, Few::One))
    }
}

impl Producers {
    /// Adds one. Where there is no room, a closed one goes, or else the one that connected first. `scanned` keeps, from
    /// call to call, the number of closings after which nothing closed was found, so that the search is not repeated for
    /// every event while more than [`PRODUCERS_MAX`] connections are open.
    fn add(&mut self, producer: ProducerId, open: &OpenProducers, scanned: &mut u64) {
        let producers = match &mut self.0 {
            Few::None => {
                self.0 = Few::One(producer);
                return;
            }
            Few::One(one) if *one == producer => return,
            Few::One(one) => {
                self.0 = Few::Many(vec![(*one).min(producer), (*one).max(producer)]);
                return;
            }
            Few::Many(producers) => producers,
        };
        if producers.binary_search(&producer).is_ok() {
            return;
        }
        if producers.len() >= PRODUCERS_MAX {
            if *scanned != open.closings {
                producers.retain(|producer| open.ids.contains(producer));
                *scanned = open.closings;
            }
            if producers.len() >= PRODUCERS_MAX {
                producers.remove(0);
            }
        }
        let (Ok(at) | Err(at)) = producers.binary_search(&producer);
        producers.insert(at, producer);
    }
}

/// Which connections have written and are not closed yet.
#[derive(Debug, Default)]
pub(crate) struct OpenProducers {
    ids: BTreeSet<ProducerId>,
    /// How many were closed so far.
    closings: u64,
    /// The one that wrote last: usually the next one, too.
    last: Option<ProducerId>,
}

impl OpenProducers {
    pub(crate) fn wrote(&mut self, producer: ProducerId) {
        if self.last == Some(producer) {
            return;
        }
        self.last = Some(producer);
        if self.ids.insert(producer) && self.ids.len() > OPEN_MAX {
            self.ids.pop_first();
            self.closings += 1;
        }
    }

    pub(crate) fn closed(&mut self, producer: ProducerId) {
        self.last = None;
        if self.ids.remove(&producer) {
            self.closings += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> ProducerId {
        ProducerId::new(id).unwrap()
    }

    #[test]
    fn the_closed_go_first_then_the_oldest() {
        let (mut open, mut scanned, mut producers) = (OpenProducers::default(), 0, Producers::default());
        let max = PRODUCERS_MAX as u64;
        for i in 1..=max {
            open.wrote(id(i));
            producers.add(id(i), &open, &mut scanned);
            producers.add(id(i), &open, &mut scanned);
        }
        assert_eq!(producers.len(), PRODUCERS_MAX);

        open.closed(id(7));
        open.closed(id(9));
        assert_eq!(producers.len(), PRODUCERS_MAX, "closed ones stay as long as there is room");
        for i in max + 1..=max + 2 {
            open.wrote(id(i));
            producers.add(id(i), &open, &mut scanned);
        }
        let expected: Vec<_> = (1..=max + 2).filter(|i| ![7, 9].contains(i)).map(id).collect();
        assert_eq!(*producers, *expected);

        open.wrote(id(max + 3));
        producers.add(id(max + 3), &open, &mut scanned);
        assert_eq!(*producers, [&expected[1..], &[id(max + 3)]].concat());
    }

    #[test]
    fn one_producer_twice_is_one() {
        let (open, mut scanned) = (OpenProducers::default(), 0);
        let mut producers = Producers::from(Some(id(3)));
        producers.add(id(3), &open, &mut scanned);
        assert_eq!(*producers, [id(3)]);
        producers.add(id(1), &open, &mut scanned);
        assert_eq!(*producers, [id(1), id(3)]);
    }
}
