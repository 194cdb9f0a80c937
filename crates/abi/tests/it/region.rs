//! Whatever a guest writes, validation answers a range inside the memory or an error, and both for the right reason.

use proptest::prelude::*;
use slung_abi::{Region, RegionError, span};

/// u32 with the extremes, and what is around the sizes of memory used here, drawn often.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        0..80_u32,
        (0..80_u32).prop_map(|below| u32::MAX - below),
        (0..80_u32).prop_map(|around| 65_536 - 40 + around),
        Just(1 << 31),
        Just((1 << 31) - 1),
    ]
}

fn memory_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0_usize),
        0..100_usize,
        Just(65_536),
        Just(usize::try_from(u32::MAX).expect("64-bit machines run the tests")),
        Just(1 << 32),
        Just(usize::MAX),
    ]
}

proptest! {
    #[test]
    fn encoding_round_trips(offset in number(), capacity in number(), length in number()) {
        let region = Region { offset, capacity, length };
        prop_assert_eq!(Region::decode(region.encode()), region);
    }

    #[test]
    fn every_12_bytes_are_a_region(bytes in any::<[u8; 12]>()) {
        prop_assert_eq!(Region::decode(bytes).encode(), bytes);
    }

    /// Against arithmetic that can't overflow.
    #[test]
    fn validation_is_right(
        offset in number(), capacity in number(), length in number(), memory_bytes in memory_bytes(),
    ) {
        let fits = u128::from(offset) + u128::from(capacity) <= memory_bytes as u128;
        match (Region { offset, capacity, length }).validate(memory_bytes) {
            Ok(range) => {
                prop_assert!(length <= capacity && fits && (offset > 0 || capacity == 0));
                prop_assert_eq!(range.start, offset as usize);
                prop_assert_eq!(range.len(), length as usize);
                prop_assert!(range.end <= memory_bytes);
            }
            Err(RegionError::LengthOverCapacity { .. }) => prop_assert!(length > capacity),
            Err(RegionError::NullData { .. }) => prop_assert!(offset == 0 && capacity > 0),
            Err(RegionError::DataOutside { .. }) => prop_assert!(!fits),
            Err(other) => prop_assert!(false, "{other:?} is about the address"),
        }
    }

    #[test]
    fn span_is_right(address in number(), bytes in number(), memory_bytes in memory_bytes()) {
        let end = u128::from(address) + u128::from(bytes);
        let expected = (end <= memory_bytes as u128).then_some(address as usize..end as usize);
        prop_assert_eq!(span(address, bytes, memory_bytes), expected);
    }

    /// Any memory, any address: no panic, and the data is what a naive reader finds.
    #[test]
    fn any_memory_at_any_address(
        memory in prop::collection::vec(prop_oneof![Just(0_u8), 0..80_u8, any::<u8>(), Just(255)], 0..120),
        address in number(),
    ) {
        let read = Region::read(&memory, address);
        let data = Region::data(&memory, address);
        match read {
            Err(error) => {
                prop_assert!(address == 0 || u64::from(address) + 12 > memory.len() as u64);
                prop_assert_eq!(data, Err(error));
            }
            Ok(region) => {
                prop_assert_eq!(&region.encode()[..], &memory[address as usize..address as usize + 12]);
                prop_assert_eq!(data, region.validate(memory.len()).map(|range| &memory[range]));
            }
        }
    }

    /// Regions that are made to be good, overlapping their own data included, are never refused.
    #[test]
    fn good_regions_are_read(
        mut memory in prop::collection::vec(any::<u8>(), 40..200), at in 1..28_u32, offset in 1..40_u32,
        length in 0..40_u32, spare in 0..40_u32,
    ) {
        let capacity = (length + spare).min(memory.len() as u32 - offset);
        let region = Region { offset, capacity, length: length.min(capacity) };
        memory[at as usize..at as usize + 12].copy_from_slice(&region.encode());
        let expected = &memory[offset as usize..(offset + region.length) as usize];
        prop_assert_eq!(Region::data(&memory, at), Ok(expected));
    }
}

#[test]
fn errors_say_what_and_where() {
    let error = Region { offset: 7, capacity: u32::MAX, length: 1 }.validate(65_536).expect_err("far outside");
    assert_eq!(error.to_string(), "the Region's 4294967295 bytes at 7 end past the memory of 65536 bytes");
    let error = Region::read(&[0; 20], 9).expect_err("12 bytes are not there");
    assert_eq!(error.to_string(), "the Region at 9 ends past the memory of 20 bytes");
}
