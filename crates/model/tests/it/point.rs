//! What makes a point acceptable, at the extremes.

use proptest::prelude::*;
use slung_model::{AHEAD_MICROS_MAX, PointError, ProducerId, TIMESTAMP_MAX, TIMESTAMP_MIN, TimeRange, validate_point};

const NOW: i64 = 1_700_000_000_000_000;

#[test]
fn values_are_finite() {
    for value in [0.0, -0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, -5e-324] {
        assert_eq!(validate_point(NOW, value, NOW, 0), Ok(()), "{value}");
    }
    for value in [f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(validate_point(NOW, value, NOW, 0), Err(PointError::NotFinite(value)));
    }
    assert!(matches!(validate_point(NOW, f64::NAN, NOW, 0), Err(PointError::NotFinite(value)) if value.is_nan()));
    assert!(matches!(validate_point(NOW, -f64::NAN, NOW, 0), Err(PointError::NotFinite(_))));
}

#[test]
fn timestamps_are_what_json_keeps_exactly() {
    assert_eq!((TIMESTAMP_MIN, TIMESTAMP_MAX), (-9_007_199_254_740_991, 9_007_199_254_740_991));
    for timestamp in [TIMESTAMP_MIN, TIMESTAMP_MIN + 1, -1, 0, 1, TIMESTAMP_MAX - 1, TIMESTAMP_MAX] {
        assert_eq!(validate_point(timestamp, 1.0, TIMESTAMP_MAX, 0), Ok(()), "{timestamp}");
    }
    for timestamp in [i64::MIN, TIMESTAMP_MIN - 1, TIMESTAMP_MAX + 1, i64::MAX] {
        let refused = validate_point(timestamp, 1.0, i64::MAX, i64::MAX);
        assert_eq!(refused, Err(PointError::OutOfRange(timestamp)));
    }
}

#[test]
fn at_most_a_day_ahead_of_the_clock() {
    assert_eq!(AHEAD_MICROS_MAX, 86_400_000_000);
    assert_eq!(validate_point(NOW + AHEAD_MICROS_MAX, 1.0, NOW, AHEAD_MICROS_MAX), Ok(()));
    let timestamp = NOW + AHEAD_MICROS_MAX + 1;
    assert_eq!(
        validate_point(timestamp, 1.0, NOW, AHEAD_MICROS_MAX),
        Err(PointError::Ahead { timestamp, now: NOW, ahead_micros_max: AHEAD_MICROS_MAX })
    );
    // A clock or an option at its end overflows nothing.
    assert_eq!(validate_point(TIMESTAMP_MAX, 1.0, i64::MAX, i64::MAX), Ok(()));
    assert_eq!(validate_point(TIMESTAMP_MAX, 1.0, 1, i64::MAX), Ok(()));
    assert!(matches!(validate_point(0, 1.0, i64::MIN, i64::MAX), Err(PointError::Ahead { .. })));
    assert!(matches!(validate_point(TIMESTAMP_MIN, 1.0, i64::MIN, 0), Err(PointError::Ahead { .. })));
}

#[test]
fn a_producer_is_never_zero() {
    assert_eq!(ProducerId::new(0), None);
    assert_eq!(ProducerId::new(1).map(ProducerId::get), Some(1));
    assert_eq!(ProducerId::new(u64::MAX).map(ProducerId::get), Some(u64::MAX));
}

proptest! {
    #[test]
    fn acceptable_is_exactly_this(timestamp: i64, value in any::<f64>(), now: i64, ahead in 0..i64::MAX) {
        let in_time = i128::from(timestamp) <= i128::from(now) + i128::from(ahead);
        let in_range = timestamp.unsigned_abs() < 1 << 53;
        let expected = value.is_finite() && in_range && in_time;
        prop_assert_eq!(validate_point(timestamp, value, now, ahead).is_ok(), expected);
    }

    #[test]
    fn both_ends_belong_to_a_range(a: i64, b: i64, at: i64) {
        let range = TimeRange::between(a, b);
        prop_assert_eq!(range, TimeRange::between(b, a));
        prop_assert!(range.contains(a) && range.contains(b));
        prop_assert_eq!(range.contains(at), (a <= at && at <= b) || (b <= at && at <= a));
        prop_assert!(TimeRange::ALL.contains(at));
    }
}
