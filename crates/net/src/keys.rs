//! The series that one connection has named before, found again by the bytes that named them.

use std::collections::HashMap;

use slung_model::SeriesId;

/// What one connection's cache may take, bytes: 1 MiB, some ten thousand series of usual names. Whoever names more goes
/// through the backend for some of them.
pub(crate) const CACHE_BYTES_MAX: usize = 1024 * 1024;

/// What an entry costs beside its bytes: the slot in the table, and the allocation.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// From a key's bytes, as they stand in a frame, to the id of its series. A key that is in here was decoded and
/// accepted before, so neither needs to be done again.
#[derive(Debug)]
pub(crate) struct KeyCache {
    ids: HashMap<Box<[u8]>, SeriesId, foldhash::fast::RandomState>,
    bytes: usize,
    bytes_max: usize,
}

impl KeyCache {
    /// An empty one, without an allocation.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { ids: HashMap::default(), bytes: 0, bytes_max }
    }

    /// The id of a key that is known.
    pub(crate) fn get(&self, key: &[u8]) -> Option<SeriesId> {
        self.ids.get(key).copied()
    }

    /// Remembers a key. A full cache starts anew: that needs no bookkeeping on each hit, and whoever has more keys than
    /// fit pays for most of them in any order of removal.
    pub(crate) fn insert(&mut self, key: &[u8], id: SeriesId) {
        let cost = key.len() + ENTRY_OVERHEAD_BYTES;
        if self.bytes + cost > self.bytes_max {
            self.ids.clear();
            self.bytes = 0;
        }
        if self.ids.insert(key.into(), id).is_none() {
            self.bytes += cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_what_it_was_told_and_stays_within_its_bytes() {
        let mut cache = KeyCache::new(1_000);
        assert_eq!(cache.get(b"a"), None);
        cache.insert(b"a", SeriesId(1));
        cache.insert(b"a", SeriesId(1));
        assert_eq!((cache.get(b"a"), cache.bytes), (Some(SeriesId(1)), 65));
        for id in 0..10_000_u32 {
            cache.insert(&id.to_le_bytes(), SeriesId(id));
            assert_eq!(cache.get(&id.to_le_bytes()), Some(SeriesId(id)));
            assert!(cache.bytes <= 1_000 && cache.ids.len() <= 1_000 / ENTRY_OVERHEAD_BYTES);
        }
        assert_eq!(cache.get(b"a"), None);
    }
}
