//! Which windows a series feeds: of those that are known by a look into a list, of a new one over its name and tags.

use std::collections::HashMap;

use slung_model::{Filter, Query, SeriesId, SeriesKey};

/// A window's place among all of them.
pub(crate) type SlotIndex = usize;

/// Series that feed the same windows are of one class. A new window takes the series that it matches out of their classes,
/// or joins a class of which it matches all; so it costs some nanoseconds for each of them, and no memory but the class's.
#[derive(Debug)]
pub(crate) struct Feeds {
    /// By series; class 0 for those that feed nothing, and for those beyond the end.
    class_of: Vec<u32>,
    /// No more than there are series, for a class is never left by all of its own.
    classes: Vec<Class>,
    /// By window: the classes that feed it.
    fed_by: Vec<Vec<u32>>,
    names: HashMap<Box<str>, Wanted>,
}

#[derive(Debug, Default, Clone)]
struct Class {
    slots: Vec<SlotIndex>,
    /// How many series are of it. Not counted for class 0.
    series: usize,
}

/// The windows that want series of one name.
#[derive(Debug, Default)]
struct Wanted {
    /// By a tag that each series must carry.
    by_tag: HashMap<Box<str>, Vec<SlotIndex>>,
    /// Those without such a tag.
    others: Vec<SlotIndex>,
}

/// Of no window.
const NOTHING: u32 = 0;

impl Default for Feeds {
    fn default() -> Self {
        Self { class_of: Vec::new(), classes: vec![Class::default()], fed_by: Vec::new(), names: HashMap::new() }
    }
}

impl Feeds {
    /// The windows that a series feeds.
    #[inline]
    pub(crate) fn slots(&self, series: SeriesId) -> &[SlotIndex] {
        let class = self.class_of.get(series.index()).copied().unwrap_or(NOTHING);
        &self.classes[class as usize].slots
    }

    /// A window is there, which wants series of those names, among them these, each once.
    pub(crate) fn insert(&mut self, slot: SlotIndex, query: &Query, series: &[SeriesId]) {
        if self.fed_by.len() <= slot {
            self.fed_by.resize_with(slot + 1, Vec::new);
        }
        for name in query.series() {
            let wanted = self.names.entry(name.into()).or_default();
            match wanted.rarest_tag(query.filter()) {
                Some(tag) => wanted.by_tag.entry(tag.into()).or_default().push(slot),
                None => wanted.others.push(slot),
            }
        }
        self.feed(slot, series);
    }

    /// A window is gone.
    pub(crate) fn remove(&mut self, slot: SlotIndex, query: &Query) {
        for class in std::mem::take(&mut self.fed_by[slot]) {
            let slots = &mut self.classes[class as usize].slots;
            forget(slots, slot);
            if slots.is_empty() {
                *slots = Vec::new();
            }
        }
        for name in query.series() {
            if let Some(wanted) = self.names.get_mut(name) {
                wanted.forget(slot, query.filter());
                if wanted.others.is_empty() && wanted.by_tag.is_empty() {
                    self.names.remove(name);
                }
            }
        }
    }

    /// A series is there that may be new: it feeds those of the windows that want it which `matches` says.
    pub(crate) fn series_added(&mut self, id: SeriesId, key: &SeriesKey, matches: impl Fn(SlotIndex) -> bool) {
        let Some(wanted) = self.names.get(key.name()) else { return };
        let by_tag = key.tags().filter_map(|tag| wanted.by_tag.get(tag)).flatten();
        let fed = self.slots(id);
        let new: Vec<SlotIndex> =
            by_tag.chain(&wanted.others).copied().filter(|slot| !fed.contains(slot) && matches(*slot)).collect();
        for slot in new {
            self.feed(slot, &[id]);
        }
    }

    /// Lets those series feed the window, which none of them does yet.
    fn feed(&mut self, slot: SlotIndex, series: &[SeriesId]) {
        let Some(last) = series.iter().max() else { return };
        if self.class_of.len() <= last.index() {
            self.class_of.resize(last.index() + 1, NOTHING);
        }
        // How many of each class, and the class that they go to.
        let mut moves: HashMap<u32, (usize, u32)> = HashMap::new();
        for run in series.chunk_by(|a, b| self.class_of[a.index()] == self.class_of[b.index()]) {
            moves.entry(self.class_of[run[0].index()]).or_default().0 += run.len();
        }
        for (&class, (count, to)) in &mut moves {
            *to = self.joined_by(slot, class, *count);
        }
        let mut last = (NOTHING, moves.get(&NOTHING).map_or(NOTHING, |(_, to)| *to));
        for id in series {
            let class = &mut self.class_of[id.index()];
            if *class != last.0 {
                last = (*class, moves.get(class).map_or(*class, |(_, to)| *to));
            }
            *class = last.1;
        }
    }

    /// The class for so many series of that one, which feed the window from now on.
    fn joined_by(&mut self, slot: SlotIndex, class: u32, count: usize) -> u32 {
        let from = &mut self.classes[class as usize];
        if class != NOTHING && from.series == count {
            from.slots.push(slot);
            self.fed_by[slot].push(class);
            return class;
        }
        from.series = from.series.saturating_sub(count);
        let mut slots = Vec::with_capacity(from.slots.len() + 1);
        slots.extend_from_slice(&from.slots);
        slots.push(slot);
        let new = u32::try_from(self.classes.len()).expect("there are no more classes than series, whose ids are u32");
        for slot in &slots {
            self.fed_by[*slot].push(new);
        }
        self.classes.push(Class { slots, series: count });
        new
    }
}

impl Wanted {
    /// Of the tags that every matching series carries, the one that the fewest windows are known by.
    fn rarest_tag<'f>(&self, filter: &'f Filter) -> Option<&'f str> {
        required(filter).min_by_key(|tag| self.by_tag.get(*tag).map_or(0, Vec::len))
    }

    fn forget(&mut self, slot: SlotIndex, filter: &Filter) {
        for tag in required(filter) {
            if let Some(slots) = self.by_tag.get_mut(tag) {
                forget(slots, slot);
                if slots.is_empty() {
                    self.by_tag.remove(tag);
                }
            }
        }
        forget(&mut self.others, slot);
    }
}

/// The tags that every series carries which the filter matches, as far as they are plain to see.
fn required(filter: &Filter) -> impl Iterator<Item = &str> {
    let parts = if let Filter::And(parts) = filter { parts.as_slice() } else { std::slice::from_ref(filter) };
    parts.iter().filter_map(|part| if let Filter::Tag(tag) = part { Some(&**tag) } else { None })
}

fn forget(slots: &mut Vec<SlotIndex>, slot: SlotIndex) {
    if let Some(at) = slots.iter().position(|other| *other == slot) {
        slots.swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const FILTERS: [&str; 7] = ["", "a", "b", "a AND b", "a OR b", "NOT a", "(a OR b) AND c"];

    fn key(id: u32) -> SeriesKey {
        let tags = ["a", "b", "c"].iter().enumerate().filter(|(bit, _)| id >> bit & 1 == 1).map(|(_, tag)| *tag);
        SeriesKey::new(if id & 8 == 0 { "x" } else { "y" }, tags.chain([format!("id={id}").as_str()])).unwrap()
    }

    proptest! {
        /// Whatever comes and goes, every series feeds the windows whose queries match it, and those alone.
        #[test]
        fn every_series_feeds_what_matches_it(
            steps in prop::collection::vec((0..4_u8, 0..64_u32, 0..FILTERS.len(), 0..3_usize), 1..120),
        ) {
            let (mut feeds, mut known, mut windows) = (Feeds::default(), BTreeSet::new(), Vec::<Option<Query>>::new());
            for (step, id, filter, names) in steps {
                match step {
                    0 | 1 => {
                        known.insert(id);
                        let key = key(id);
                        feeds.series_added(SeriesId(id), &key, |slot| windows[slot].as_ref().unwrap().matches(&key));
                    }
                    2 => {
                        let query = format!("COUNT:{}:[{}]", ["x", "y", "x,y"][names], FILTERS[filter]);
                        let query = Query::parse(&query).unwrap();
                        let ids: Vec<_> =
                            known.iter().filter(|id| query.matches(&key(**id))).map(|id| SeriesId(*id)).collect();
                        let slot = windows.iter().position(Option::is_none).unwrap_or(windows.len());
                        feeds.insert(slot, &query, &ids);
                        windows.resize(windows.len().max(slot + 1), None);
                        windows[slot] = Some(query);
                    }
                    _ => {
                        let slot = windows.len() * id as usize / 64;
                        if let Some(query) = windows.get_mut(slot).and_then(Option::take) {
                            feeds.remove(slot, &query);
                        }
                    }
                }
                for id in 0..70 {
                    let fed: BTreeSet<_> = feeds.slots(SeriesId(id)).iter().copied().collect();
                    prop_assert_eq!(fed.len(), feeds.slots(SeriesId(id)).len());
                    let matching = (0..windows.len()).filter(|slot| {
                        known.contains(&id) && windows[*slot].as_ref().is_some_and(|query| query.matches(&key(id)))
                    });
                    prop_assert_eq!(fed, matching.collect::<BTreeSet<_>>());
                }
            }
            prop_assert!(feeds.classes.len() <= known.len() + 1, "no more classes than series");
            let left: usize = windows.iter().flatten().count();
            if left == 0 {
                prop_assert!(feeds.names.is_empty());
            }
        }
    }
}
