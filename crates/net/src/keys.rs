//! The series that one connection has named before, found again by the bytes that named them.

use std::collections::HashMap;

use slung_model::SeriesId;

use crate::memory::Reserved;

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
    /// Those bytes, taken from what the caches of all connections may take.
    reserved: Reserved,
}

impl KeyCache {
    /// An empty one, without an allocation. What it keeps is taken from `reserved` too.
    pub(crate) fn new(bytes_max: usize, reserved: Reserved) -> Self {
        Self { ids: HashMap::default(), bytes: 0, bytes_max, reserved }
    }

    /// Forgets all, and gives the memory back.
    pub(crate) fn clear(&mut self) {
        self.ids = HashMap::default();
        self.bytes = 0;
        self.reserved.resize(0);
    }

    /// The id of a key that is known.
    pub(crate) fn get(&self, key: &[u8]) -> Option<SeriesId> {
        self.ids.get(key).copied()
    }

    /// Remembers a key. A full cache starts anew: that needs no bookkeeping on each hit, and whoever has more keys than
    /// fit pays for most of them in any order of removal. Where all caches together are full nothing is remembered.
    pub(crate) fn insert(&mut self, key: &[u8], id: SeriesId) {
        let cost = key.len() + ENTRY_OVERHEAD_BYTES;
        if self.bytes + cost > self.bytes_max {
            self.ids.clear();
            self.bytes = 0;
        }
        if !self.reserved.resize(self.bytes + cost) {
            return;
        }
        if self.ids.insert(key.into(), id).is_none() {
            self.bytes += cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn it_knows_what_it_was_told_and_stays_within_its_bytes() {
        let memory = Memory::new(900);
        let mut cache = KeyCache::new(800, memory.reserve());
        assert_eq!(cache.get(b"a"), None);
        cache.insert(b"a", SeriesId(1));
        cache.insert(b"a", SeriesId(1));
        assert_eq!((cache.get(b"a"), cache.bytes), (Some(SeriesId(1)), 65));
        for id in 0..10_000_u32 {
            cache.insert(&id.to_le_bytes(), SeriesId(id));
            assert_eq!(cache.get(&id.to_le_bytes()), Some(SeriesId(id)));
            assert!(cache.bytes <= 800 && cache.ids.len() <= 800 / ENTRY_OVERHEAD_BYTES);
        }
        assert_eq!(cache.get(b"a"), None);

        // Another one finds what is left, and works without.
        cache.clear();
        (0..11_u32).for_each(|id| cache.insert(&id.to_le_bytes(), SeriesId(id)));
        let mut other = KeyCache::new(800, memory.reserve());
        (0..10_u32).for_each(|id| other.insert(&id.to_le_bytes(), SeriesId(id)));
        assert_eq!((other.bytes, memory.used()), (2 * 68, 13 * 68));
        cache.clear();
        assert_eq!((cache.get(&10_u32.to_le_bytes()), memory.used()), (None, other.bytes));
    }
}
