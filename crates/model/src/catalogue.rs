//! Which series there are, and which of them a query means.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Query, SeriesId, SeriesKey};

/// Every series of one store: key to id, id to key, and an index of names and tags. Ids are given in order, from 0, and
/// never taken back.
#[derive(Debug, Default)]
pub struct Catalogue {
    keys: Vec<Arc<SeriesKey>>,
    ids: HashMap<Arc<SeriesKey>, SeriesId>,
    by_name: HashMap<Box<str>, Vec<SeriesId>>,
    series_max: Option<u32>,
}

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
        self.by_name.entry(key.name().into()).or_default().push(id);
        self.ids.insert(Arc::clone(&key), id);
        self.keys.push(key);
        Ok(id)
    }

    /// The key of an id that was given out.
    pub fn key(&self, id: SeriesId) -> Option<&Arc<SeriesKey>> {
        self.keys.get(id.index())
    }

    /// The series that the query means, in the order of their ids.
    pub fn select(&self, query: &Query) -> Vec<SeriesId> {
        let mut found = Vec::new();
        for name in query.series() {
            let ids = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
            found.extend(ids.iter().copied().filter(|id| query.filter().matches(&self.keys[id.index()])));
        }
        found.sort_unstable();
        found.dedup();
        found
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
