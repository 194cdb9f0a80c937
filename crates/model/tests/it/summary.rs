//! Summaries: parts that merge, and bytes that are believed only where they could be true.

use proptest::prelude::*;
use slung_model::{Increase, Spread, Summary};

use crate::aggregate::values;

fn encoded(summary: &Summary) -> Vec<u8> {
    let mut bytes = vec![0xAA; 3];
    summary.encode(&mut bytes);
    bytes.split_off(3)
}

/// Bit for bit, which `==` does not see of -0.0.
fn check_round_trip(summary: &Summary) {
    let bytes = encoded(summary);
    assert_eq!(bytes.len(), Summary::BYTES);
    let decoded = Summary::decode(&bytes).unwrap_or_else(|| panic!("{summary:?} is refused"));
    assert_eq!(&decoded, summary);
    assert_eq!(encoded(&decoded), bytes);
}

const COUNT: usize = 0;
const SUM: usize = 1;
const CARRY: usize = 3;
const MIN: usize = 4;
const MAX: usize = 5;
const M2: usize = 6;
const START: usize = 7;
const END: usize = 8;
const FIRST: usize = 9;
const LAST: usize = 10;
const INCREASE: usize = 11;

fn sample() -> Summary {
    Summary::of(&[-5, 10, 20], &[2.0, 4.0, 3.0]).expect("there are points")
}

#[test]
fn of_a_few() {
    let summary = sample();
    assert_eq!((summary.count(), summary.start(), summary.end()), (3, -5, 20));
    assert_eq!((summary.first(), summary.last()), (2.0, 3.0));
    assert_eq!(*summary.spread(), Spread::of(&[2.0, 4.0, 3.0]));
    assert_eq!(summary.aggregate(), summary.spread().aggregate());
    assert_eq!(Some(*summary.increase()), Increase::of(&[-5, 10, 20], &[2.0, 4.0, 3.0]));
    assert_eq!(Summary::of(&[], &[]), None);
}

/// The bytes of a file, with the meaning of each.
#[test]
fn the_bytes_are_these() {
    let words: [[u8; 8]; 12] = [
        3_u64.to_le_bytes(),
        9.0_f64.to_le_bytes(),
        0.0_f64.to_le_bytes(),
        0_i64.to_le_bytes(),
        2.0_f64.to_le_bytes(),
        4.0_f64.to_le_bytes(),
        2.0_f64.to_le_bytes(),
        (-5_i64).to_le_bytes(),
        20_i64.to_le_bytes(),
        2.0_f64.to_le_bytes(),
        3.0_f64.to_le_bytes(),
        5.0_f64.to_le_bytes(),
    ];
    assert_eq!(Summary::BYTES, 96);
    assert_eq!(encoded(&sample()), words.concat());
}

#[test]
fn extremes_round_trip() {
    let values = [0.0, -0.0, 5e-324, -5e-324, 1.0, 1e-308, f64::MIN_POSITIVE, f64::MAX, f64::MIN];
    for a in values {
        check_round_trip(&Summary::of(&[i64::MIN], &[a]).unwrap());
        check_round_trip(&Summary::of(&[i64::MAX], &[a]).unwrap());
        for b in values {
            let two = Summary::of(&[i64::MIN, i64::MAX], &[a, b]).unwrap();
            check_round_trip(&two);
            let many: Vec<f64> = [a, b, a].repeat(20);
            let timestamps: Vec<i64> = (0..60).collect();
            let mut many = Summary::of(&timestamps, &many).unwrap();
            check_round_trip(&many);
            many.merge_later(&Summary::of(&[60], &[b]).unwrap());
            check_round_trip(&many);
        }
    }
    let most = Summary::of(&(0..8192).collect::<Vec<_>>(), &[f64::MIN; 8192]).unwrap();
    assert!(most.aggregate().is_saturated());
    check_round_trip(&most);
}

#[test]
fn what_no_points_could_have_given_is_refused() {
    let with = |changes: &[(usize, u64)]| {
        let mut bytes = encoded(&sample());
        for (word, value) in changes {
            bytes[word * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        Summary::decode(&bytes)
    };
    assert_eq!(with(&[]), Some(sample()));
    for count in [0, 1, 27, 1 << 54, u64::MAX] {
        assert_eq!(with(&[(COUNT, count)]), None, "{count} points within 25 microseconds");
    }
    assert!(with(&[(COUNT, 26)]).is_some());
    for float in [SUM, 2, MIN, MAX, M2, FIRST, LAST, INCREASE] {
        for bits in [f64::NAN.to_bits(), f64::INFINITY.to_bits(), f64::NEG_INFINITY.to_bits(), u64::MAX] {
            assert_eq!(with(&[(float, bits)]), None, "word {float} of {bits:#x}");
        }
    }
    for carry in [6, -6, i64::MAX, i64::MIN] {
        assert_eq!(with(&[(CARRY, carry.cast_unsigned())]), None, "3 values do not carry {carry}");
    }
    let refused = [
        (MIN, 4.5_f64.to_bits()),
        (MIN, 2.5_f64.to_bits()),
        (MAX, 1.0_f64.to_bits()),
        (MAX, 2.5_f64.to_bits()),
        (FIRST, 1.9_f64.to_bits()),
        (FIRST, 4.1_f64.to_bits()),
        (LAST, 1.9_f64.to_bits()),
        (LAST, 4.1_f64.to_bits()),
        (M2, (-1e-300_f64).to_bits()),
        (START, 20),
        (START, 21),
        (END, (-5_i64).cast_unsigned()),
        (END, i64::MIN.cast_unsigned()),
    ];
    for change in refused {
        assert_eq!(with(&[change]), None, "{change:?}");
    }
    let one = encoded(&Summary::of(&[7], &[2.0]).unwrap());
    for (word, value) in [
        (COUNT, 2),
        (MIN, 1.0_f64.to_bits()),
        (MAX, 3.0_f64.to_bits()),
        (M2, 1.0_f64.to_bits()),
        (START, 6),
        (END, 8),
        (FIRST, 1.0_f64.to_bits()),
        (INCREASE, 1.0_f64.to_bits()),
    ] {
        let mut bytes = one.clone();
        bytes[word * 8..][..8].copy_from_slice(&value.to_le_bytes());
        assert_eq!(Summary::decode(&bytes), None, "one point, word {word}");
    }
}

#[test]
fn only_the_right_length_is_read() {
    let mut bytes = encoded(&sample());
    bytes.push(0);
    for len in (0..Summary::BYTES).chain([Summary::BYTES + 1]) {
        assert_eq!(Summary::decode(&bytes[..len]), None, "{len} bytes");
    }
    bytes.resize(Summary::BYTES * 2, 0);
    assert_eq!(Summary::decode(&bytes), None);
}

/// A file that was made to say so can't stop a query that merges what it says.
#[test]
fn what_is_believed_merges_without_a_panic() {
    let mut bytes = encoded(&Summary::of(&[i64::MIN, i64::MAX], &[f64::MIN, f64::MAX]).unwrap());
    bytes[..8].copy_from_slice(&(1_u64 << 53).to_le_bytes());
    bytes[CARRY * 8..][..8].copy_from_slice(&(1_u64 << 53).to_le_bytes());
    let mut all = Summary::decode(&bytes).unwrap();
    for _ in 0..70 {
        all.merge_later(&all.clone());
    }
    assert_eq!(all.count(), u64::MAX);
    assert!(all.spread().std_dev().is_some_and(f64::is_finite) && all.increase().rate().is_some_and(f64::is_finite));
}

fn rising(count: usize) -> Vec<i64> {
    (0..count as i64).map(|i| i * 1_000 - 7).collect()
}

proptest! {
    #[test]
    fn any_split_is_the_whole(values in values(), split in any::<prop::sample::Index>()) {
        let timestamps = rising(values.len());
        let at = split.index(values.len() + 1);
        let whole = Summary::of(&timestamps, &values);
        let parts = [
            Summary::of(&timestamps[..at], &values[..at]),
            Summary::of(&timestamps[at..], &values[at..]),
        ];
        let [Some(mut merged), Some(later)] = parts else {
            prop_assert_eq!(parts[0].or(parts[1]), whole);
            return Ok(());
        };
        merged.merge_later(&later);
        let whole = whole.unwrap();
        prop_assert_eq!((merged.count(), merged.start(), merged.end()), (whole.count(), whole.start(), whole.end()));
        prop_assert_eq!((merged.first(), merged.last()), (whole.first(), whole.last()));
        check_round_trip(&merged);
        check_round_trip(&whole);
    }

    #[test]
    fn arbitrary_bytes_are_a_summary_or_none(bytes in prop::collection::vec(any::<u8>(), Summary::BYTES)) {
        if let Some(summary) = Summary::decode(&bytes) {
            prop_assert_eq!(encoded(&summary), bytes);
        }
    }

    #[test]
    fn a_changed_summary_is_a_summary_or_none(
        values in values(),
        changes in prop::collection::vec((0..12usize, prop_oneof![any::<u64>(), 0..9u64, any::<f64>().prop_map(f64::to_bits)]), 1..3),
        flips in prop::collection::vec((0..Summary::BYTES, 0..8u32), 0..3),
    ) {
        let Some(summary) = Summary::of(&rising(values.len()), &values) else { return Ok(()) };
        let mut bytes = encoded(&summary);
        for (word, value) in changes {
            bytes[word * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        if let Some(mut summary) = Summary::decode(&bytes) {
            prop_assert_eq!(encoded(&summary), bytes);
            summary.merge_later(&summary.clone());
            prop_assert!(summary.spread().std_dev().is_some_and(f64::is_finite));
            prop_assert!(summary.increase().increase().is_finite());
        }
    }
}
