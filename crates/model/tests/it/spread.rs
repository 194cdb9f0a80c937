//! Standard deviations against plain recomputation, however the parts are put together.

use proptest::prelude::*;
use slung_model::{Aggregate, Op, Spread};

use crate::aggregate::values;

fn pushed(values: &[f64]) -> Spread {
    let mut spread = Spread::EMPTY;
    values.iter().for_each(|value| spread.push(*value));
    spread
}

/// In two passes over the values scaled down to at most 1, so that squares stay in range; with the scale.
fn recomputed(values: &[f64]) -> (f64, f64) {
    let scale = values.iter().fold(0.0, |scale: f64, value| scale.max(value.abs())).max(f64::MIN_POSITIVE);
    let scaled: Vec<f64> = values.iter().map(|value| value / scale).collect();
    let count = scaled.len() as f64;
    let mean = Aggregate::of(scaled.iter().copied()).sum() / count;
    let squares = Aggregate::of(scaled.iter().map(|value| (value - mean).powi(2)));
    ((squares.sum() / count).sqrt(), scale)
}

fn check(spread: &Spread, values: &[f64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(spread.aggregate().count(), values.len() as u64);
    let Some(std_dev) = spread.std_dev() else {
        prop_assert!(values.is_empty());
        return Ok(());
    };
    prop_assert!(std_dev.is_finite() && std_dev >= 0.0);
    let (expected, scale) = recomputed(values);
    if spread.is_saturated() {
        prop_assert!(expected * scale > 1e152, "{} is not too large", expected * scale);
        return Ok(());
    }
    // What is squared must not vanish, below about 1e-162.
    let allowed = 1e-12 * scale + 1e-160;
    prop_assert!((std_dev - expected * scale).abs() <= allowed, "{std_dev} for {}", expected * scale);
    Ok(())
}

#[test]
fn of_nothing_and_of_one() {
    for empty in [Spread::EMPTY, Spread::default(), Spread::of(&[]), pushed(&[])] {
        assert_eq!(empty, Spread::EMPTY);
        assert_eq!(empty.std_dev(), None);
    }
    for value in [0.0, -3.5, 5e-324, f64::MAX, f64::MIN] {
        let mut one = Spread::of(&[value]);
        assert_eq!(one.std_dev(), Some(0.0));
        one.merge(&Spread::EMPTY);
        let mut none = Spread::EMPTY;
        none.merge(&one);
        assert_eq!((none, one), (pushed(&[value]), Spread::of(&[value])));
    }
}

#[test]
fn of_a_few() {
    let few = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
    for spread in [Spread::of(&few), pushed(&few)] {
        assert_eq!(spread.std_dev(), Some(2.0));
        assert_eq!(spread.aggregate().value(Op::Avg), Some(5.0));
    }
}

#[test]
fn equal_values_have_none() {
    for value in [0.1, 1e16 / 3.0, 5e-324, f64::MAX, f64::MIN] {
        let values = vec![value; 1_001];
        let mut merged = Spread::of(&values[..10]);
        merged.merge(&Spread::of(&values[10..]));
        for spread in [Spread::of(&values), pushed(&values), merged] {
            assert_eq!(spread.std_dev(), Some(0.0), "{value}");
        }
    }
}

/// The sum of squares less the square of the sum has no digit left here.
#[test]
fn a_large_mean_costs_no_digits() {
    let values: Vec<f64> = (0..10_000).map(|i| 1e9 + f64::from(i % 2)).collect();
    let mut merged = Spread::EMPTY;
    values.chunks(100).for_each(|chunk| merged.merge(&Spread::of(chunk)));
    // One by one, the rounding of a mean of 1e9 is in every difference.
    for (spread, allowed) in [(Spread::of(&values), 1e-14), (merged, 1e-14), (pushed(&values), 1e-7)] {
        let off = (spread.std_dev().unwrap() - 0.5).abs();
        assert!(off <= allowed, "off by {off:e}");
    }
}

#[test]
fn what_is_too_large_to_be_squared_answers_the_largest_value() {
    let mut half = Spread::of(&[f64::MAX]);
    half.merge(&Spread::of(&[f64::MIN]));
    let mut more = half;
    more.merge(&half);
    more.push(0.0);
    for spread in [Spread::of(&[f64::MAX, f64::MIN]), pushed(&[f64::MIN, f64::MAX]), half, more] {
        assert_eq!((spread.std_dev(), spread.is_saturated()), (Some(f64::MAX), true));
    }
    assert_eq!(Spread::of(&[1e150, -1e150]).std_dev(), Some(1e150));
}

proptest! {
    #[test]
    fn against_recomputation(values in values()) {
        check(&Spread::of(&values), &values)?;
        check(&pushed(&values), &values)?;
    }

    #[test]
    fn merging_in_any_grouping_is_the_same(a in values(), b in values(), c in values()) {
        let [x, y, z] = [&a, &b, &c].map(|part| Spread::of(part));
        let (mut left, mut yz, mut right, mut back) = (x, y, x, z);
        left.merge(&y);
        left.merge(&z);
        yz.merge(&z);
        right.merge(&yz);
        back.merge(&y);
        back.merge(&x);
        let all = [a, b, c].concat();
        for merged in [left, right, back] {
            check(&merged, &all)?;
        }
    }
}
