//! Which event feeds which live queries, and what becomes of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

use slung_model::{Aggregate, Op, Point, ProducerId, Query, SeriesId, SeriesKey};

use crate::time::Passed;
use crate::update::{Change, OpenProducers};
use crate::window::{Room, Taken, Window};
use crate::{Error, HandleId, Subscriber};

/// The updates that may wait per handle: some 70 KiB for a guest that stands still.
pub const QUEUE_UPDATES_MAX: usize = 1024;

/// Limits. None of them is reached by accident; what happens beyond each is said with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Updates that wait per handle, [`QUEUE_UPDATES_MAX`] by default. Beyond it an aggregate merges into its newest
    /// waiting update, and a raw query drops its oldest.
    pub queue_updates_max: usize,
    /// Points that one window keeps, 1,000,000 by default (24 MB). A sliding window that would start with more is refused.
    /// One that grows beyond it lets its oldest points go and says so ([`WindowState::Shortened`]); an absolute one lets
    /// all of them go and counts writes from then on ([`WindowState::CountsWrites`]).
    pub window_points_max: usize,
    /// Points that all windows keep together, 20,000,000 by default (480 MB). Beyond it the window that grows is treated
    /// as above, and a new sliding window is refused.
    pub points_max: usize,
    /// Handles at once, 100,000 by default. Beyond it a query is refused.
    pub handles_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_updates_max: QUEUE_UPDATES_MAX,
            window_points_max: 1_000_000,
            points_max: 20_000_000,
            handles_max: 100_000,
        }
    }
}

/// Whether a window is what it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowState {
    /// Every point that belongs to it is in it, each once. Also a running aggregate, which promises to count writes.
    Exact,
    /// Points that belong to it were let go, the oldest first, because there was no room. It is exact again once they
    /// would have left anyhow.
    Shortened,
    /// An absolute window without room for its points: a point that is written again counts again.
    CountsWrites,
}

/// One live query as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowStats {
    /// Points that it keeps, hidden ones included.
    pub points: usize,
    /// Whether they are all that should be there.
    pub state: WindowState,
}

/// All live queries together; the numbers of updates are each [`Subscriber`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Live queries that are registered.
    pub handles: usize,
    /// Windows that they have; those with the same query share one.
    pub windows: usize,
    /// Points that the windows keep.
    pub points: usize,
    /// Windows that are [`WindowState::Shortened`] now.
    pub windows_shortened: usize,
    /// Windows that are [`WindowState::CountsWrites`] now.
    pub windows_counting_writes: usize,
    /// Points that windows let go for want of room, since the start.
    pub points_cut: u64,
    /// Events that were too old for a sliding window, since the start; one per handle that did not get it.
    pub late: u64,
    /// How often a sum left the finite range, since the start; one per window until it is back.
    pub sums_saturated: u64,
}

/// Every live query, and the way of an event to those that it feeds. See the crate's documentation for an example.
///
/// Pure: no I/O, no thread, no clock; its owner puts a lock around it and says what time it is. `now` is microseconds since
/// the Unix epoch and may jump; a jump back counts as no time.
#[derive(Debug)]
pub struct Live {
    options: Options,
    /// By series: whom an event of it feeds. `None` for the many that feed nothing.
    feeds: Vec<Option<Box<Feed>>>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Beside `slots`: when time alone changes the window next. Of its own, so that a tick reads 8 bytes per window.
    due: Vec<i64>,
    by_handle: HashMap<HandleId, usize>,
    /// The window that a further handle of that query joins, if it may.
    by_query: HashMap<Arc<Query>, usize>,
    /// By series name: the windows that want series of that name.
    by_name: HashMap<Box<str>, Vec<usize>>,
    open: OpenProducers,
    passed: Passed,
    room: Room,
    late: u64,
    sums_saturated: u64,
}

#[derive(Debug)]
struct Feed {
    key: Arc<SeriesKey>,
    slots: Vec<usize>,
}

/// One query's window, and everyone who reads it.
struct Slot {
    query: Arc<Query>,
    /// In the order of their handles; never empty once the slot is in its place.
    readers: Vec<Reader>,
    /// The series that feed it, to be found again when it goes.
    series: Vec<SeriesId>,
    window: Window,
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

impl Live {
    /// Without any query.
    pub fn new(options: Options) -> Self {
        let room = Room {
            window_points_max: options.window_points_max.max(1),
            points_max: options.points_max,
            points: 0,
            points_cut: 0,
        };
        Self {
            options,
            feeds: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            due: Vec::new(),
            by_handle: HashMap::new(),
            by_query: HashMap::new(),
            by_name: HashMap::new(),
            open: OpenProducers::default(),
            passed: Passed::default(),
            room,
            late: 0,
            sums_saturated: 0,
        }
    }

    /// A subscriber with queues as the options say.
    pub fn subscriber(&self) -> Arc<Subscriber> {
        Subscriber::new(self.options.queue_updates_max)
    }

    /// Registers a query: from now on its updates come to `subscriber`. What it starts with gives no update.
    ///
    /// Where [`Live::join`] finds a window, that is all; neither `series` nor `history` is looked at then.
    ///
    /// `series` are those that the query means, as far as they are known yet; later ones come by [`Live::series_added`].
    /// `history` are the stored points that the query starts from, and must be in no later [`Live::apply`]: those of the
    /// range for an absolute window, those not older than the newest one less the width for a sliding window, in the order
    /// of their timestamps (in another order it is slow); of a raw sliding query the newest one alone is enough. Others
    /// use nothing of it, and don't look.
    ///
    /// # Errors
    /// [`Error`]: the range or the operator is none for a live query, or a limit is reached. Nothing has changed then.
    pub fn subscribe(
        &mut self,
        subscriber: &Arc<Subscriber>,
        query: &Query,
        series: impl IntoIterator<Item = (SeriesId, Arc<SeriesKey>)>,
        history: impl IntoIterator<Item = Point>,
        now: i64,
    ) -> Result<HandleId, Error> {
        if let Some(handle) = self.join(subscriber, query)? {
            return Ok(handle);
        }
        let passed = self.passed.at(now);
        let mut window = Window::new(query.op(), query.window()?);
        self.load(&mut window, history)?;
        if let Window::Slide(sliding) = &mut window {
            sliding.start(passed, now);
        }

        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.due.push(i64::MAX);
            self.slots.len() - 1
        });
        let mut fed_by = Vec::new();
        for (id, key) in series {
            fed_by.push(id);
            self.feed(id, &key).slots.push(index);
        }
        for name in query.series() {
            self.by_name.entry(name.into()).or_default().push(index);
        }
        self.due[index] = window.due();
        let query = Arc::new(query.clone());
        self.by_query.insert(Arc::clone(&query), index);
        let mut slot = Slot { query, readers: Vec::new(), series: fed_by, window, saturated: false };
        let handle = slot.add(subscriber);
        self.by_handle.insert(handle, index);
        self.slots[index] = Some(slot);
        Ok(handle)
    }

    /// Registers a query that somebody reads already, so that both share one window, at no more cost than the queue. `None`
    /// where there is none to share: the window is not kept, or is not what a new one would be. A running aggregate is
    /// shared only until the first event, and never a window that has lost points.
    ///
    /// All who share a window get the same updates from the moment when they came. Its end moves by the arrival of the
    /// events that it saw, also for who came after them.
    ///
    /// # Errors
    /// [`Error`]: the range or the operator is none for a live query, or there are as many handles as may be. Nothing has changed then.
    pub fn join(&mut self, subscriber: &Arc<Subscriber>, query: &Query) -> Result<Option<HandleId>, Error> {
        query.window()?;
        if self.by_handle.len() >= self.options.handles_max {
            return Err(Error::TooManyHandles { handles_max: self.options.handles_max });
        }
        let Some(&index) = self.by_query.get(query) else { return Ok(None) };
        let Some(slot) = self.slots[index].as_mut().filter(|slot| slot.window.can_be_joined()) else { return Ok(None) };
        let handle = slot.add(subscriber);
        self.by_handle.insert(handle, index);
        Ok(Some(handle))
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

    fn remove_slot(&mut self, index: usize) {
        let Some(slot) = self.slots[index].take() else { return };
        self.free.push(index);
        self.due[index] = i64::MAX;
        self.room.points -= slot.window.points();
        // A later window of the same query may have taken its place there.
        if self.by_query.get(&slot.query) == Some(&index) {
            self.by_query.remove(&slot.query);
        }
        for id in slot.series {
            let place = &mut self.feeds[id.index()];
            if let Some(feed) = place {
                forget(&mut feed.slots, index);
                if feed.slots.is_empty() {
                    *place = None;
                }
            }
        }
        for name in slot.query.series() {
            if let Some(slots) = self.by_name.get_mut(name) {
                forget(slots, index);
                if slots.is_empty() {
                    self.by_name.remove(name);
                }
            }
        }
    }

    /// Ends all of the subscriber's queries.
    pub fn remove(&mut self, subscriber: &Arc<Subscriber>) {
        for handle in subscriber.handles() {
            self.unsubscribe(subscriber, handle);
        }
    }

    /// Makes a new series known, before its first point: it feeds the queries that it matches.
    pub fn series_added(&mut self, id: SeriesId, key: &Arc<SeriesKey>) {
        let Some(named) = self.by_name.get(key.name()) else { return };
        let fed = self.feeds.get(id.index()).and_then(Option::as_deref).map_or(&[][..], |feed| &feed.slots);
        let matching: Vec<usize> = named
            .iter()
            .copied()
            .filter(|index| !fed.contains(index))
            .filter(|index| self.slots[*index].as_ref().is_some_and(|slot| slot.query.matches(key)))
            .collect();
        for index in matching {
            self.feed(id, key).slots.push(index);
            if let Some(slot) = &mut self.slots[index] {
                slot.series.push(id);
            }
        }
    }

    /// Takes written points, each valid, in the order of writing: every one gives its own update to each query that it
    /// feeds.
    pub fn apply(&mut self, producer: Option<ProducerId>, points: &[Point], now: i64) -> Wakes {
        let passed = self.passed.at(now);
        if let Some(producer) = producer {
            self.open.wrote(producer);
        }
        let mut wakes = Wakes::default();
        for point in points {
            let Some(Some(feed)) = self.feeds.get(point.series.index()) else { continue };
            for &index in &feed.slots {
                let Some(slot) = &mut self.slots[index] else { continue };
                let taken = slot.window.take(point, passed, &mut self.room);
                self.due[index] = slot.window.due();
                let made = match taken {
                    Taken::Outside => None,
                    Taken::Late => {
                        self.late += slot.readers.len() as u64;
                        for reader in &slot.readers {
                            reader.subscriber.count_late(reader.handle);
                        }
                        None
                    }
                    Taken::Raw => Some((point.value, None)),
                    Taken::Aggregate(total) => {
                        self.sums_saturated += slot.note_saturation(&total);
                        slot.answer(&total)
                    }
                };
                if let Some((value, state)) = made {
                    let change = Change { timestamp: point.timestamp, value, key: &feed.key, producer, state };
                    slot.tell(&change, &self.open, &mut wakes);
                }
            }
        }
        wakes
    }

    /// A connection is gone, after its last [`Live::apply`]: where an update can't name all producers, it goes first.
    pub fn producer_closed(&mut self, producer: ProducerId) {
        self.open.closed(producer);
    }

    /// Time passes: tells those whose windows have left points behind. To be called about four times a second.
    pub fn tick(&mut self, now: i64) -> Wakes {
        let passed = self.passed.at(now);
        let mut wakes = Wakes::default();
        for (index, due) in self.due.iter_mut().enumerate() {
            if *due > passed {
                continue;
            }
            let Some(slot) = &mut self.slots[index] else { continue };
            let Window::Slide(sliding) = &mut slot.window else { continue };
            let total = sliding.leave_behind(passed);
            let newest = sliding.newest().and_then(|(timestamp, series)| {
                let feed = self.feeds.get(series.index())?.as_deref()?;
                Some((timestamp, Arc::clone(&feed.key)))
            });
            let made = slot.answer(&total);
            if let (Some((value, state)), Some((timestamp, key))) = (made, newest) {
                self.sums_saturated += slot.note_saturation(&total);
                if let Window::Slide(sliding) = &mut slot.window {
                    sliding.tell(passed);
                }
                let change = Change { timestamp, value, key: &key, producer: None, state };
                slot.tell(&change, &self.open, &mut wakes);
            }
            *due = slot.window.due();
        }
        wakes
    }

    /// One live query as it is now; `None` where there is no such handle.
    pub fn window_stats(&self, handle: HandleId) -> Option<WindowStats> {
        let slot = self.slots[*self.by_handle.get(&handle)?].as_ref()?;
        Some(WindowStats { points: slot.window.points(), state: slot.state() })
    }

    /// All live queries together. Looks at each of them.
    pub fn stats(&self) -> Stats {
        let with = |state| self.slots.iter().flatten().filter(|slot| slot.state() == state).count();
        Stats {
            handles: self.by_handle.len(),
            windows: self.slots.len() - self.free.len(),
            points: self.room.points,
            windows_shortened: with(WindowState::Shortened),
            windows_counting_writes: with(WindowState::CountsWrites),
            points_cut: self.room.points_cut,
            late: self.late,
            sums_saturated: self.sums_saturated,
        }
    }

    /// Gives a window what is stored of it, or takes back the room that it took.
    fn load(&mut self, window: &mut Window, history: impl IntoIterator<Item = Point>) -> Result<(), Error> {
        if !window.wants_history() {
            return Ok(());
        }
        let full = matches!(window, Window::Slide(_)) && self.room.points >= self.room.points_max;
        let fits = !full && history.into_iter().all(|point| window.take_stored(&point, &mut self.room));
        if fits {
            return Ok(());
        }
        let points = window.points();
        self.room.points -= points;
        if points > self.room.window_points_max {
            return Err(Error::WindowTooBig { window_points_max: self.room.window_points_max });
        }
        Err(Error::NoRoom { points_max: self.room.points_max })
    }

    fn feed(&mut self, id: SeriesId, key: &Arc<SeriesKey>) -> &mut Feed {
        if self.feeds.len() <= id.index() {
            self.feeds.resize_with(id.index() + 1, || None);
        }
        self.feeds[id.index()].get_or_insert_with(|| Box::new(Feed { key: Arc::clone(key), slots: Vec::new() }))
    }
}

impl Slot {
    fn add(&mut self, subscriber: &Arc<Subscriber>) -> HandleId {
        // Each is greater than all before it, so that the order stays.
        let handle = HandleId::next();
        subscriber.add(handle, self.query.op() == Op::Raw);
        self.readers.push(Reader { handle, subscriber: Arc::clone(subscriber) });
        handle
    }

    /// Queues one update for everyone who reads the window.
    fn tell(&self, change: &Change<'_>, open: &OpenProducers, wakes: &mut Wakes) {
        for reader in &self.readers {
            if let Some(waker) = reader.subscriber.deliver(reader.handle, change, open) {
                wakes.0.push(waker);
            }
        }
    }

    /// What the query tells of an aggregate: its value, and the state behind it where it has one.
    fn answer(&self, total: &Aggregate) -> Option<(f64, Option<(f64, u64)>)> {
        let op = self.query.op();
        let state = matches!(op, Op::Avg | Op::Sum | Op::Count).then(|| (total.sum(), total.count()));
        // A window that has become empty has the sum 0, where a historical query over nothing has none.
        let value = if op == Op::Sum { total.sum() } else { total.value(op)? };
        Some((value, state))
    }

    /// 1 where the sum has just left the finite range.
    fn note_saturation(&mut self, total: &Aggregate) -> u64 {
        let newly = total.is_saturated() && !self.saturated;
        self.saturated = total.is_saturated();
        u64::from(newly)
    }

    fn state(&self) -> WindowState {
        match &self.window {
            Window::Slide(sliding) if sliding.is_shortened() => WindowState::Shortened,
            Window::Tally { gave_up: true, .. } => WindowState::CountsWrites,
            _ => WindowState::Exact,
        }
    }
}

fn forget(slots: &mut Vec<usize>, index: usize) {
    if let Some(at) = slots.iter().position(|slot| *slot == index) {
        slots.swap_remove(at);
    }
}
