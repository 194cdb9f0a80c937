//! Which event feeds which live queries, and what becomes of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

use slung_model::{Op, Point, ProducerId, Query, SeriesId, SeriesKey, TimeRange};

use crate::feeds::{Feeds, SlotIndex};
use crate::loading::{Loading, Place, Recorded};
use crate::options::Options;
use crate::panes::PANES;
use crate::stats::{Stats, WindowStats};
use crate::time::Passed;
use crate::total::Seen;
use crate::update::{Change, OpenProducers, Shared};
use crate::window::{Taken, Window};
use crate::{Error, HandleId, Subscriber};

/// Giving up the points of a window that takes less than this gains nothing: its panes would take as much.
const GIVEN_UP_BYTES_MIN: usize = 100 * PANES as usize;

/// Every live query, and the way of an event to those that it feeds. See the crate's documentation for an example.
///
/// Pure: no I/O, no thread, no clock; its owner puts a lock around it and says what time it is. `now` is microseconds since
/// the Unix epoch and may jump; a jump back counts as no time. `keys` says the key of a series; it is asked once for each
/// series that feeds a query.
#[derive(Debug)]
pub struct Live {
    options: Options,
    feeds: Feeds,
    /// By series, as far as an update was told of it.
    keys: Vec<Option<Arc<SeriesKey>>>,
    slots: Vec<Option<Slot>>,
    free: Vec<SlotIndex>,
    /// Beside `slots`: when time alone changes the window next. Of its own, so that a tick reads 8 bytes per window.
    due: Vec<i64>,
    /// How many slots there were so far.
    numbers: u64,
    by_handle: HashMap<HandleId, SlotIndex>,
    /// The window that a further handle of that query joins, if it may.
    by_query: HashMap<Arc<Query>, SlotIndex>,
    open: OpenProducers,
    passed: Passed,
    /// Memory of all windows.
    bytes: usize,
    counts: Counts,
}

/// See [`Stats`].
#[derive(Debug, Default)]
struct Counts {
    given_up: u64,
    late: u64,
    ahead: u64,
    ahead_cut: u64,
    sums_saturated: u64,
}

/// One query's window, and everyone who reads it.
struct Slot {
    /// Of all that there ever were.
    number: u64,
    query: Arc<Query>,
    /// In the order of their handles; empty only while the window is read for the first time.
    readers: Vec<Reader>,
    /// `None` while it is read for the first time.
    window: Option<Window>,
    /// Memory of the window, as it is counted in that of all.
    bytes: usize,
    /// Whether what it was read from was damaged.
    is_partial: bool,
    /// While it is read, for the first time or again: what arrives.
    recorded: Option<Box<Recorded>>,
    /// Whether its sum is out of the finite range.
    saturated: bool,
}

/// One live query, as its subscriber has registered it.
struct Reader {
    handle: HandleId,
    subscriber: Arc<Subscriber>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("query", &self.query).finish_non_exhaustive()
    }
}

/// The wake-ups that a change has caused; they happen when this is dropped. Drop it after the lock around [`Live`] is
/// free: waking is somebody else's code.
#[derive(Debug, Default)]
#[must_use = "keep it until the lock is free; the subscribers are woken when it is dropped"]
pub struct Wakes(Vec<Waker>);

impl Drop for Wakes {
    fn drop(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }
}

/// What a series is called.
pub type Keys<'k> = &'k dyn Fn(SeriesId) -> Option<Arc<SeriesKey>>;

impl Live {
    /// Without any query.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            feeds: Feeds::default(),
            keys: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            due: Vec::new(),
            numbers: 0,
            by_handle: HashMap::new(),
            by_query: HashMap::new(),
            open: OpenProducers::default(),
            passed: Passed::default(),
            bytes: 0,
            counts: Counts::default(),
        }
    }

    /// A subscriber with queues as the options say.
    pub fn subscriber(&self) -> Arc<Subscriber> {
        Subscriber::new(self.options.queue_updates_max)
    }

    /// Registers a query: from now on its updates come to `subscriber`. What it starts with gives no update. For an owner
    /// that has everything at hand; one that has to read it goes by [`Live::begin`].
    ///
    /// Where [`Live::join`] finds a window, that is all; neither `series` nor `history` is looked at then.
    ///
    /// `series` are those that the query means, as far as they are known yet, each once; later ones come by
    /// [`Live::series_added`]. `history` are all stored points of these series, each series and timestamp once, those of one
    /// timestamp in the order of writing; what lies outside of the window is left out here. None of them must be in a later
    /// [`Live::apply`].
    ///
    /// # Errors
    /// [`Error`]: the range or the operator is none for a live query, or a limit is reached. It is not registered then; other
    /// windows may have given up their points to make room for it.
    pub fn subscribe(
        &mut self,
        subscriber: &Arc<Subscriber>,
        query: &Query,
        series: impl IntoIterator<Item = SeriesId>,
        history: impl IntoIterator<Item = Point>,
        now: i64,
    ) -> Result<HandleId, Error> {
        if let Some(handle) = self.join(subscriber, query)? {
            return Ok(handle);
        }
        let series: Vec<SeriesId> = series.into_iter().collect();
        let mut loading = self.begin(query, &series, now)?;
        if loading.window.wants_history() {
            loading.put_history(history);
        }
        self.finish(loading, subscriber, now)
    }

    /// Registers a query that somebody reads already, so that both share one window, at no more cost than the queue. `None`
    /// where there is none to share: the window is not kept, or is not what a new one would be. A running aggregate is
    /// shared only until the first event.
    ///
    /// All who share a window get the same updates from the moment when they came. Its end moves by the arrival of the
    /// events that it saw, also for who came after them.
    ///
    /// # Errors
    /// [`Error`]: the range or the operator is none for a live query, or there are as many handles as may be. Nothing has changed then.
    pub fn join(&mut self, subscriber: &Arc<Subscriber>, query: &Query) -> Result<Option<HandleId>, Error> {
        query.window()?;
        self.check_handles()?;
        let Some(&index) = self.by_query.get(query) else { return Ok(None) };
        let Some(slot) = &mut self.slots[index] else { return Ok(None) };
        let Some(window) = slot.window.as_ref().filter(|window| window.can_be_joined()) else { return Ok(None) };
        if subscriber.is_held() && window.begins_with_nothing() {
            return Ok(None);
        }
        let handle = slot.add(subscriber);
        self.by_handle.insert(handle, index);
        Ok(Some(handle))
    }

    fn check_handles(&self) -> Result<(), Error> {
        let handles_max = self.options.handles_max;
        if self.by_handle.len() >= handles_max { Err(Error::TooManyHandles { handles_max }) } else { Ok(()) }
    }

    /// Begins to register a query whose history its owner has to read: everything that arrives for it is recorded from now
    /// on. To be ended by [`Live::finish`] or [`Live::abandon`].
    ///
    /// `series` as for [`Live::subscribe`].
    ///
    /// # Errors
    /// [`Error`]: the range or the operator is none for a live query, or there are as many handles as may be.
    pub fn begin(&mut self, query: &Query, series: &[SeriesId], now: i64) -> Result<Loading, Error> {
        query.window()?;
        self.check_handles()?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.due.push(i64::MAX);
            self.slots.len() - 1
        });
        self.feeds.insert(index, query, series);
        self.numbers += 1;
        let query = Arc::new(query.clone());
        self.slots[index] = Some(Slot {
            number: self.numbers,
            query: Arc::clone(&query),
            readers: Vec::new(),
            window: None,
            bytes: 0,
            is_partial: false,
            recorded: Some(Box::default()),
            saturated: false,
        });
        let place = Place { slot: index, number: self.numbers };
        Ok(Loading::new(place, query, self.passed.arrival(now), false, self.options.window_points_max)?)
    }

    /// The windows that have any of what is stored of those series in that range.
    pub fn holding(&self, series: &[SeriesId], range: TimeRange) -> Vec<Place> {
        let mut found: Vec<SlotIndex> = Vec::new();
        let mut last: &[SlotIndex] = &[];
        for id in series {
            let slots = self.feeds.slots(*id);
            // Whole runs of series feed the same.
            if !std::ptr::eq(slots, last) {
                found.extend_from_slice(slots);
                last = slots;
            }
        }
        found.sort_unstable();
        found.dedup();
        let place = |slot: SlotIndex| {
            let held = self.slots[slot].as_ref()?;
            let holds = held.window.as_ref().is_some_and(|window| window.holds(range));
            holds.then_some(Place { slot, number: held.number })
        };
        found.into_iter().filter_map(place).collect()
    }

    /// Begins to make a window anew from what is stored: it goes on meanwhile, and what arrives is recorded as well. To be
    /// ended by [`Live::replace`] or [`Live::abandon`]. `None` where it is not there any more.
    pub fn begin_again(&mut self, place: Place, now: i64) -> Option<Loading> {
        let arrival = self.passed.arrival(now);
        let slot = self.slot_mut(place)?;
        slot.recorded = Some(Box::default());
        if let Some(Window::Slide(sliding)) = &mut slot.window {
            sliding.come_to(arrival);
        }
        let query = Arc::clone(&slot.query);
        let mut loading = Loading::new(place, query, arrival, true, self.options.window_points_max).ok()?;
        loading.restart(arrival, self.window(place));
        Some(loading)
    }

    /// What has arrived for the window since it was begun, or since the last call. Where that was too much to keep, the
    /// window has to be read again ([`Live::restart`]): `None`.
    pub fn recorded(&mut self, loading: &Loading) -> Option<Recorded> {
        let recorded = self.slot_mut(loading.place)?.recorded.as_mut()?;
        Some(std::mem::take(&mut **recorded)).filter(|recorded| !recorded.overran)
    }

    /// Begins once more, with nothing in the window and nothing recorded. Answers whether the window is still wanted: one
    /// that is made anew may have lost its last reader.
    pub fn restart(&mut self, loading: &mut Loading, now: i64) -> bool {
        loading.restart(self.passed.arrival(now), self.window(loading.place).filter(|_| loading.again));
        let slot = self.slot_mut(loading.place);
        slot.map(|slot| slot.recorded = Some(Box::default())).is_some()
    }

    /// Ends what was begun as if it had not been.
    pub fn abandon(&mut self, loading: Loading) {
        let Some(slot) = self.slot_mut(loading.place) else { return };
        slot.recorded = None;
        if slot.window.is_none() {
            self.remove_slot(loading.place.slot);
        }
    }

    /// The query is registered, with the window that was read; what was recorded last is taken first, without an update.
    ///
    /// # Errors
    /// [`Error`]: a limit is reached. It is not registered then; other windows may have given up their points to make room for
    /// it.
    pub fn finish(&mut self, loading: Loading, subscriber: &Arc<Subscriber>, now: i64) -> Result<HandleId, Error> {
        let index = loading.place.slot;
        let query = Arc::clone(&loading.query);
        let mut window = self.loaded(loading);
        if let Window::Slide(sliding) = &mut window {
            // Of what is to be seen now the reader needs no word.
            sliding.look(self.passed.arrival(now));
        }
        self.due[index] = window.due();
        if let Some(slot) = &mut self.slots[index] {
            recount(&mut self.bytes, &mut slot.bytes, window.bytes());
            slot.window = Some(window);
        }
        let admitted = self.check_handles().and_then(|()| self.admit());
        if let Err(error) = admitted {
            self.remove_slot(index);
            return Err(error);
        }
        let Some(slot) = &mut self.slots[index] else { unreachable!("it was put there") };
        let handle = slot.add(subscriber);
        // One that is to begin anew has it for itself.
        if !(subscriber.is_held() && slot.window.as_ref().is_some_and(Window::begins_with_nothing)) {
            self.by_query.insert(query, index);
        }
        self.by_handle.insert(handle, index);
        Ok(handle)
    }

    /// Nothing arrives at that subscriber from now on, until [`Live::switch`]. Its queries can be registered, and their
    /// windows follow what is written.
    pub fn hold(&mut self, subscriber: &Arc<Subscriber>) {
        subscriber.set_held(true);
    }

    /// In one moment nothing arrives at `from` any more, and everything at `to`, which was held: what was written before is
    /// told to the one, what is written afterwards to the other. What waits for `from` can still be taken. Running aggregates
    /// of `to` begin here, with nothing; its windows are what they are for everybody.
    pub fn switch(&mut self, from: Option<&Arc<Subscriber>>, to: &Arc<Subscriber>) {
        if let Some(from) = from {
            from.set_held(true);
        }
        for handle in to.handles() {
            let Some(&index) = self.by_handle.get(&handle) else { continue };
            let Some(slot) = &mut self.slots[index] else { continue };
            let Some(window) = &mut slot.window else { continue };
            // It was registered while the subscriber was held, so nobody else reads it.
            if window.begins_with_nothing() && slot.readers.len() == 1 {
                *window = Window::new(slot.query.op(), slot.query.window().unwrap_or(slung_model::Window::Running));
                recount(&mut self.bytes, &mut slot.bytes, window.bytes());
                slot.saturated = false;
            }
        }
        to.set_held(false);
    }

    /// The window that was made anew takes the place of what it was; what was recorded last is taken first. Who reads it is
    /// told where that changes what is to be seen.
    pub fn replace(&mut self, loading: Loading, now: i64, keys: Keys<'_>) -> Wakes {
        let mut wakes = Wakes::default();
        let Place { slot: index, .. } = loading.place;
        if self.slot_mut(loading.place).is_none() {
            return wakes;
        }
        let arrival = self.passed.arrival(now);
        let mut window = self.loaded(loading);
        let Some(slot) = &mut self.slots[index] else { return wakes };
        let Some(before) = &mut slot.window else { return wakes };
        let mut newest = before.newest();
        let shown = before.shown();
        if let (Window::Slide(window), Window::Slide(before)) = (&mut window, &mut *before) {
            before.come_to(arrival);
            window.go_on_from(before);
        }
        let seen = match &mut window {
            Window::Slide(sliding) => {
                let (seen, _) = sliding.look(arrival);
                newest = sliding.newest().or(newest);
                seen
            }
            window => window.seen(),
        };
        recount(&mut self.bytes, &mut slot.bytes, window.bytes());
        self.due[index] = window.due();
        *before = window;
        if let Some((timestamp, series)) = newest
            && seen.count != shown
            && let Some(key) = key_of(&mut self.keys, series, keys)
        {
            let cause = Cause { timestamp, key, producer: None, arrived: now };
            slot.tell_seen(&seen, &cause, &self.open, &mut self.counts, &mut wakes);
        }
        self.make_room(false);
        wakes
    }

    /// The window with everything in it that has arrived.
    fn loaded(&mut self, mut loading: Loading) -> Window {
        if let Some(recorded) = self.recorded(&loading) {
            loading.catch_up(Some(&recorded));
        }
        if let Some(slot) = &mut self.slots[loading.place.slot] {
            slot.recorded = None;
            slot.is_partial = loading.is_partial;
        }
        loading.window
    }

    fn slot_mut(&mut self, place: Place) -> Option<&mut Slot> {
        self.slots[place.slot].as_mut().filter(|slot| slot.number == place.number)
    }

    fn window(&self, place: Place) -> Option<&Window> {
        self.slots[place.slot].as_ref().filter(|slot| slot.number == place.number)?.window.as_ref()
    }

    /// Ends one of the subscriber's queries, with what waits of it. Answers whether there was such a one.
    pub fn unsubscribe(&mut self, subscriber: &Arc<Subscriber>, handle: HandleId) -> bool {
        let Some(&index) = self.by_handle.get(&handle) else { return false };
        let Some(slot) = &mut self.slots[index] else { return false };
        let Ok(at) = slot.readers.binary_search_by_key(&handle, |reader| reader.handle) else { return false };
        if !Arc::ptr_eq(&slot.readers[at].subscriber, subscriber) {
            return false;
        }
        slot.readers.remove(at);
        let is_read = !slot.readers.is_empty();
        self.by_handle.remove(&handle);
        subscriber.remove(handle);
        if !is_read {
            self.remove_slot(index);
        }
        true
    }

    fn remove_slot(&mut self, index: SlotIndex) {
        let Some(slot) = self.slots[index].take() else { return };
        self.free.push(index);
        self.due[index] = i64::MAX;
        self.bytes -= slot.bytes;
        // A later window of the same query may have taken its place there.
        if self.by_query.get(&slot.query) == Some(&index) {
            self.by_query.remove(&slot.query);
        }
        self.feeds.remove(index, &slot.query);
    }

    /// Ends all of the subscriber's queries.
    pub fn remove(&mut self, subscriber: &Arc<Subscriber>) {
        for handle in subscriber.handles() {
            self.unsubscribe(subscriber, handle);
        }
    }

    /// Makes a new series known, before its first point: it feeds the queries that it matches.
    pub fn series_added(&mut self, id: SeriesId, key: &SeriesKey) {
        let slots = &self.slots;
        self.feeds.series_added(id, key, |slot| slots[slot].as_ref().is_some_and(|slot| slot.query.matches(key)));
    }

    /// Takes written points, each valid, in the order of writing: every one gives its own update to each query that it
    /// feeds.
    pub fn apply(&mut self, producer: Option<ProducerId>, points: &[Point], now: i64, keys: Keys<'_>) -> Wakes {
        let arrival = self.passed.arrival(now);
        if let Some(producer) = producer {
            self.open.wrote(producer);
        }
        let mut wakes = Wakes::default();
        for point in points {
            let slots = self.feeds.slots(point.series);
            if slots.is_empty() {
                continue;
            }
            let Some(key) = key_of(&mut self.keys, point.series, keys) else { continue };
            for &index in slots {
                let Some(slot) = &mut self.slots[index] else { continue };
                if let Some(recorded) = &mut slot.recorded {
                    recorded.push(point, arrival);
                }
                let Some(window) = &mut slot.window else { continue };
                let taken = window.take(point, arrival);
                if window.points() > self.options.window_points_max && window.give_up_points() {
                    self.counts.given_up += 1;
                }
                recount(&mut self.bytes, &mut slot.bytes, window.bytes());
                self.due[index] = window.due();
                match taken {
                    Taken::Outside => {}
                    Taken::Ahead => self.counts.ahead += 1,
                    Taken::Late => {
                        self.counts.late += slot.readers.len() as u64;
                        for reader in &slot.readers {
                            reader.subscriber.count_late(reader.handle);
                        }
                    }
                    Taken::Raw => {
                        let (timestamp, value) = (point.timestamp, point.value);
                        let change =
                            Change { timestamp, value, key, shared: None, producer, state: None, arrived: now };
                        slot.tell(change, &self.open, &mut wakes);
                    }
                    Taken::Changed => {
                        let seen = window.seen();
                        let cause = Cause { timestamp: point.timestamp, key, producer, arrived: now };
                        slot.tell_seen(&seen, &cause, &self.open, &mut self.counts, &mut wakes);
                    }
                }
            }
        }
        if self.bytes > self.options.windows_bytes_max {
            self.make_room(true);
        }
        wakes
    }

    /// A connection is gone, after its last [`Live::apply`]: where an update can't name all producers, it goes first.
    pub fn producer_closed(&mut self, producer: ProducerId) {
        self.open.closed(producer);
    }

    /// Time passes: tells those whose windows have left points behind. To be called about four times a second.
    pub fn tick(&mut self, now: i64, keys: Keys<'_>) -> Wakes {
        let arrival = self.passed.arrival(now);
        let mut wakes = Wakes::default();
        for (index, due) in self.due.iter_mut().enumerate() {
            if *due > arrival.passed {
                continue;
            }
            let Some(slot) = &mut self.slots[index] else { continue };
            let Some(Window::Slide(sliding)) = &mut slot.window else { continue };
            let (seen, changes) = sliding.look(arrival);
            recount(&mut self.bytes, &mut slot.bytes, sliding.bytes());
            let key = sliding.newest().and_then(|(timestamp, series)| {
                let key = key_of(&mut self.keys, series, keys)?;
                Some((timestamp, key))
            });
            if let (Some((timestamp, key)), Some(_), true) = (key, seen.value, changes) {
                sliding.tell(arrival.passed);
                *due = sliding.due();
                let cause = Cause { timestamp, key, producer: None, arrived: now };
                slot.tell_seen(&seen, &cause, &self.open, &mut self.counts, &mut wakes);
            } else {
                *due = sliding.due();
            }
        }
        wakes
    }

    /// One live query as it is now; `None` where there is no such handle.
    pub fn window_stats(&self, handle: HandleId) -> Option<WindowStats> {
        let slot = self.slots[*self.by_handle.get(&handle)?].as_ref()?;
        let window = slot.window.as_ref()?;
        Some(WindowStats::of(window, slot.is_partial))
    }

    /// All live queries together. Looks at each of them.
    pub fn stats(&self) -> Stats {
        let windows = || self.slots.iter().flatten().filter_map(|slot| slot.window.as_ref());
        Stats {
            handles: self.by_handle.len(),
            windows: windows().count(),
            points: windows().map(Window::points).sum(),
            bytes: self.bytes,
            windows_in_panes: windows().filter(|window| window.pane_micros().is_some()).count(),
            windows_counting_writes: windows().filter(|window| window.counts_writes()).count(),
            windows_partial: self.slots.iter().flatten().filter(|slot| slot.is_partial).count(),
            given_up: self.counts.given_up,
            late: self.counts.late,
            ahead: self.counts.ahead,
            ahead_cut: self.counts.ahead_cut,
            sums_saturated: self.counts.sums_saturated,
        }
    }

    /// A new window is there: whether there is room for it, if need be where others give up their points.
    fn admit(&mut self) -> Result<(), Error> {
        self.make_room(false);
        let windows_bytes_max = self.options.windows_bytes_max;
        if self.bytes > windows_bytes_max { Err(Error::NoRoom { windows_bytes_max }) } else { Ok(()) }
    }

    /// Brings the windows below their limit: what waits for its time goes first, then the largest give up their points. What
    /// `must` fit is made to: panes become longer and longer. Each time a sixteenth more than is needed goes, so that not
    /// every event has to look for more.
    fn make_room(&mut self, must: bool) {
        let bytes_max = self.options.windows_bytes_max;
        if self.bytes <= bytes_max {
            return;
        }
        let goal = bytes_max - bytes_max / 16;
        self.shrink_largest(goal, |window| {
            let Window::Slide(sliding) = window else { return (false, 0) };
            sliding.forget_ahead()
        });
        self.shrink_largest(goal, |window| (window.bytes() > GIVEN_UP_BYTES_MIN && window.give_up_points(), 0));
        while must && self.shrink_largest(goal, |window| (window.shrink(), 0)) {}
    }

    /// Shrinks windows, the largest first, until they take no more than that. Answers whether that did anything and is still
    /// not enough. `shrink` says whether it did anything, and how many points that waited for their time went.
    fn shrink_largest(&mut self, goal: usize, shrink: impl Fn(&mut Window) -> (bool, usize)) -> bool {
        let mut by_size: Vec<(usize, SlotIndex)> = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            by_size.extend(slot.as_ref().and_then(|slot| slot.window.as_ref()).map(|window| (window.bytes(), index)));
        }
        by_size.sort_unstable_by(|a, b| b.cmp(a));
        let mut did = false;
        for (_, index) in by_size {
            if self.bytes <= goal {
                return false;
            }
            let Some(slot) = &mut self.slots[index] else { continue };
            let Some(window) = &mut slot.window else { continue };
            let (shrunk, cut) = shrink(window);
            self.counts.ahead_cut += cut as u64;
            self.counts.given_up += u64::from(shrunk && cut == 0);
            recount(&mut self.bytes, &mut slot.bytes, window.bytes());
            self.due[index] = window.due();
            did |= shrunk;
        }
        did && self.bytes > goal
    }
}

/// What an update is told of: the event that caused it, or the newest that the window has seen.
#[derive(Clone, Copy)]
struct Cause<'c> {
    timestamp: i64,
    key: &'c Arc<SeriesKey>,
    producer: Option<ProducerId>,
    arrived: i64,
}

/// A part of the whole has become so much.
#[inline]
fn recount(whole: &mut usize, part: &mut usize, now: usize) {
    *whole = *whole - *part + now;
    *part = now;
}

/// The key of a series, asked for once.
fn key_of<'k>(
    known: &'k mut Vec<Option<Arc<SeriesKey>>>,
    series: SeriesId,
    keys: Keys<'_>,
) -> Option<&'k Arc<SeriesKey>> {
    if known.len() <= series.index() {
        known.resize(series.index() + 1, None);
    }
    let place = &mut known[series.index()];
    if place.is_none() {
        *place = keys(series);
    }
    place.as_ref()
}

impl Slot {
    fn add(&mut self, subscriber: &Arc<Subscriber>) -> HandleId {
        // Each is greater than all before it, so that the order stays.
        let handle = HandleId::next();
        subscriber.add(handle, self.query.op() == Op::Raw);
        self.readers.push(Reader { handle, subscriber: Arc::clone(subscriber) });
        handle
    }

    /// Queues what is to be seen for everyone who reads the window, if there is anything to tell.
    #[inline]
    fn tell_seen(
        &mut self,
        seen: &Seen,
        cause: &Cause<'_>,
        open: &OpenProducers,
        counts: &mut Counts,
        wakes: &mut Wakes,
    ) {
        let Some(value) = seen.value else { return };
        counts.sums_saturated += u64::from(seen.is_saturated && !self.saturated);
        self.saturated = seen.is_saturated;
        let (Cause { timestamp, key, producer, arrived }, state) = (*cause, seen.state());
        self.tell(Change { timestamp, value, key, shared: None, producer, state, arrived }, open, wakes);
    }

    /// Queues one update for everyone who reads the window.
    fn tell(&self, change: Change<'_>, open: &OpenProducers, wakes: &mut Wakes) {
        let shared = (self.readers.len() > 1).then(|| Shared::new(change.key));
        let change = Change { shared: shared.as_ref(), ..change };
        for reader in &self.readers {
            if let Some(waker) = reader.subscriber.deliver(reader.handle, &change, open) {
                wakes.0.push(waker);
            }
        }
    }
}
