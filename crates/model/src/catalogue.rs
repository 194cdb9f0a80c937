//! Which series there are, and which of them a query means.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::{Filter, Query, SeriesId, SeriesKey};

/// Every series of one store: key to id, id to key, and an index of names and tags. Ids are given in order, from 0, and
/// never taken back.
///
/// ```
/// use slung_model::{Catalogue, Query, SeriesKey};
/// let mut catalogue = Catalogue::default();
/// let hall = catalogue.insert(&SeriesKey::new("temp", ["room=hall"])?)?;
/// let attic = catalogue.insert(&SeriesKey::new("temp", ["room=attic", "muted"])?)?;
/// assert_eq!(catalogue.select(&Query::parse("AVG:temp:[]")?), [hall, attic]);
/// assert_eq!(catalogue.select(&Query::parse("AVG:temp:[NOT muted]")?), [hall]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Catalogue {
    keys: Vec<Arc<SeriesKey>>,
    ids: HashMap<Arc<SeriesKey>, SeriesId>,
    by_name: Index,
    by_tag: Index,
    series_max: Option<u32>,
}

/// Lists of ids, each ascending: ids are given in order, so a new one goes to the end.
type Index = HashMap<Box<str>, Vec<SeriesId>>;

/// The catalogue holds as many series as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {series_max} series already, the most that are allowed")]
pub struct CatalogueFull {
    /// The limit.
    pub series_max: u32,
}

impl Catalogue {
    /// An empty one that takes at most so many series.
    pub fn with_series_max(series_max: u32) -> Self {
        Self { series_max: Some(series_max), ..Self::default() }
    }

    /// The id of a series that is known.
    pub fn get(&self, key: &SeriesKey) -> Option<SeriesId> {
        self.ids.get(key).copied()
    }

    /// The id of a series, which is made known if it was not. Ask [`Catalogue::get`] before to tell the two apart.
    ///
    /// # Errors
    /// [`CatalogueFull`] for a new series beyond the limit.
    pub fn insert(&mut self, key: &SeriesKey) -> Result<SeriesId, CatalogueFull> {
        if let Some(id) = self.get(key) {
            return Ok(id);
        }
        let series_max = self.series_max.unwrap_or(u32::MAX);
        let id = match u32::try_from(self.keys.len()) {
            Ok(id) if id < series_max => SeriesId(id),
            _ => return Err(CatalogueFull { series_max }),
        };
        let key = Arc::new(key.clone());
        append(&mut self.by_name, key.name(), id);
        for tag in key.tags() {
            append(&mut self.by_tag, tag, id);
        }
        self.ids.insert(Arc::clone(&key), id);
        self.keys.push(key);
        Ok(id)
    }

    /// Gives a series another key: for who has learned too late what it is. Answers whether that was possible: the id was
    /// given out, and no series has that key.
    pub fn rename(&mut self, id: SeriesId, key: &SeriesKey) -> bool {
        if self.ids.contains_key(key) {
            return false;
        }
        let Some(place) = self.keys.get_mut(id.index()) else { return false };
        let key = Arc::new(key.clone());
        let old = std::mem::replace(place, Arc::clone(&key));
        self.ids.remove(&old);
        forget(&mut self.by_name, old.name(), id);
        old.tags().for_each(|tag| forget(&mut self.by_tag, tag, id));
        append(&mut self.by_name, key.name(), id);
        key.tags().for_each(|tag| append(&mut self.by_tag, tag, id));
        self.ids.insert(key, id);
        true
    }

    /// The key of an id that was given out.
    pub fn key(&self, id: SeriesId) -> Option<&Arc<SeriesKey>> {
        self.keys.get(id.index())
    }

    /// The series that the query means, in the order of their ids. Takes time by the shortest list of a tag that every
    /// one of them must carry, or by the number of series of that name where there is no such tag.
    pub fn select(&self, query: &Query) -> Vec<SeriesId> {
        let mut found = Vec::new();
        for name in query.series() {
            found.extend_from_slice(&self.narrow(list(&self.by_name, name), query.filter()));
        }
        // Runs in ascending order, which this sort merges; each id has one name.
        found.sort();
        found
    }

    /// Those of `among` that the filter matches. Both are ascending.
    fn narrow<'a>(&self, among: &'a [SeriesId], filter: &Filter) -> Cow<'a, [SeriesId]> {
        match filter {
            Filter::All => Cow::Borrowed(among),
            Filter::Tag(tag) => Cow::Owned(in_both(among, list(&self.by_tag, tag))),
            Filter::Not(inner) => Cow::Owned(in_first_only(among, &self.narrow(among, inner))),
            Filter::And(parts) => {
                let mut parts: Vec<&Filter> = parts.iter().collect();
                parts.sort_by_cached_key(|part| self.at_most(part));
                parts.iter().fold(Cow::Borrowed(among), |left, part| Cow::Owned(self.narrow(&left, part).into_owned()))
            }
            Filter::Or(parts) => {
                let mut found: Vec<SeriesId> = Vec::new();
                for part in parts {
                    found.extend_from_slice(&self.narrow(among, part));
                }
                found.sort();
                found.dedup();
                Cow::Owned(found)
            }
        }
    }

    /// How many series a filter may match at most, as far as the lists tell at a glance.
    fn at_most(&self, filter: &Filter) -> usize {
        match filter {
            Filter::All | Filter::Not(_) => self.keys.len(),
            Filter::Tag(tag) => list(&self.by_tag, tag).len(),
            Filter::And(parts) => parts.iter().map(|part| self.at_most(part)).min().unwrap_or(self.keys.len()),
            Filter::Or(parts) => parts.iter().map(|part| self.at_most(part)).sum(),
        }
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn list<'a>(index: &'a Index, word: &str) -> &'a [SeriesId] {
    index.get(word).map_or(&[], Vec::as_slice)
}

fn append(index: &mut Index, word: &str, id: SeriesId) {
    match index.get_mut(word) {
        Some(ids) => {
            // At the end, but for a series that is renamed.
            let at = if ids.last() < Some(&id) { ids.len() } else { ids.partition_point(|other| *other < id) };
            ids.insert(at, id);
        }
        None => {
            index.insert(word.into(), vec![id]);
        }
    }
}

fn forget(index: &mut Index, word: &str, id: SeriesId) {
    let Some(ids) = index.get_mut(word) else { return };
    if let Ok(at) = ids.binary_search(&id) {
        ids.remove(at);
    }
    if ids.is_empty() {
        index.remove(word);
    }
}

/// What two ascending lists share. Goes through the shorter one and leaps through the longer one.
fn in_both(a: &[SeriesId], b: &[SeriesId]) -> Vec<SeriesId> {
    let (short, mut long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let mut shared = Vec::new();
    for &id in short {
        long = &long[leap(long, id)..];
        match long.first() {
            Some(&first) if first == id => shared.push(id),
            Some(_) => {}
            None => break,
        }
    }
    shared
}

/// What the second of two ascending lists leaves of the first.
fn in_first_only(a: &[SeriesId], b: &[SeriesId]) -> Vec<SeriesId> {
    let mut taken = b.iter().copied().peekable();
    let mut left = Vec::new();
    for &id in a {
        while taken.next_if(|other| *other < id).is_some() {}
        if taken.peek() != Some(&id) {
            left.push(id);
        }
    }
    left
}

/// The index of the first one that is not below `id`: steps that double, then a binary search in the last of them, so
/// that the cost goes with the distance and not with the length of the list.
fn leap(ids: &[SeriesId], id: SeriesId) -> usize {
    let mut step = 1;
    while step < ids.len() && ids[step] < id {
        step *= 2;
    }
    let from = step / 2;
    let to = ids.len().min(step);
    from + ids[from..to].partition_point(|other| *other < id)
}
