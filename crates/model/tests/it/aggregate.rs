//! Aggregates against exact arithmetic, however they are put together.

use proptest::prelude::*;
use slung_model::{Aggregate, Op};

const OPS: [Op; 4] = [Op::Avg, Op::Min, Op::Max, Op::Sum];

/// The sum without any rounding but the last one: a list of parts that do not overlap (Shewchuk, "Adaptive Precision
/// Floating-Point Arithmetic", 1997). For sums that stay far from the end of the range.
fn exact_sum(values: &[f64]) -> f64 {
    let mut parts: Vec<f64> = Vec::new();
    for &value in values {
        let mut rest = value;
        let mut kept = Vec::new();
        for &part in &parts {
            let (big, small) = if rest.abs() >= part.abs() { (rest, part) } else { (part, rest) };
            let total = big + small;
            let lost = small - (total - big);
            if lost != 0.0 {
                kept.push(lost);
            }
            rest = total;
        }
        kept.push(rest);
        parts = kept;
    }
    parts.iter().sum()
}

fn check_sum(aggregate: &Aggregate, values: &[f64]) -> Result<(), TestCaseError> {
    let allowed = 1e-12 * values.iter().map(|value| value.abs()).sum::<f64>();
    let error = (aggregate.sum() - exact_sum(values)).abs();
    prop_assert!(error <= allowed, "sum {} is off by {error}, {allowed} is allowed", aggregate.sum());
    Ok(())
}

#[test]
fn of_nothing() {
    for empty in [Aggregate::EMPTY, Aggregate::default(), Aggregate::of([])] {
        assert_eq!(empty.count(), 0);
        assert_eq!(empty.sum(), 0.0);
        assert_eq!(empty.value(Op::Count), Some(0.0));
        assert!(OPS.iter().all(|op| empty.value(*op).is_none()));
        assert!(!empty.is_saturated());
    }
    let mut one = Aggregate::of([3.5]);
    one.merge(&Aggregate::EMPTY);
    assert_eq!(one, Aggregate::of([3.5]));
    let mut none = Aggregate::EMPTY;
    none.merge(&one);
    assert_eq!(none, one);
}

#[test]
fn of_a_few() {
    let few = Aggregate::of([4.0, -1.0, 3.0]);
    assert_eq!(few.count(), 3);
    assert_eq!(few.value(Op::Count), Some(3.0));
    assert_eq!(few.value(Op::Sum), Some(6.0));
    assert_eq!(few.value(Op::Avg), Some(2.0));
    assert_eq!(few.value(Op::Min), Some(-1.0));
    assert_eq!(few.value(Op::Max), Some(4.0));
    assert_eq!(few.value(Op::Raw), None);
}

#[test]
fn a_slice_is_as_good_as_its_values() {
    for len in [0, 1, 7, 8, 9, 16, 1_000] {
        let values: Vec<f64> = (0..len).map(|i| f64::from(i * 37 % 101) - 50.0).collect();
        let (slice, single) = (Aggregate::of_slice(&values), Aggregate::of(values.iter().copied()));
        assert_eq!((slice.count(), slice.sum()), (single.count(), single.sum()));
        assert!(OPS.iter().all(|op| slice.value(*op) == single.value(*op)), "{len}");
    }
    // Out of the finite range and back, in one lane and across them.
    for step in [1, 8] {
        let mut values = vec![0.0; 64];
        values.iter_mut().step_by(step).take(3).for_each(|value| *value = f64::MAX);
        assert!(Aggregate::of_slice(&values).is_saturated());
        values.iter_mut().skip(40 / 8 * 8).step_by(step).take(2).for_each(|value| *value = f64::MIN);
        assert_eq!(Aggregate::of_slice(&values).sum(), f64::MAX);
    }
    let few = [1.0, 1e100, 1.0, -1e100].repeat(8);
    assert_eq!(Aggregate::of_slice(&few).sum(), 16.0);
}

#[test]
fn what_an_aggregate_does_not_know_it_does_not_answer() {
    let quantile = Op::Quantile(slung_model::Quantile::from_percent("50").unwrap());
    for op in [Op::First, Op::Last, Op::StdDev, Op::Rate, quantile] {
        assert_eq!(Aggregate::of([1.0]).value(op), None);
    }
}

#[test]
fn small_values_survive_large_ones() {
    assert_eq!(Aggregate::of([1.0, 1e100, 1.0, -1e100]).sum(), 2.0);
    let many = Aggregate::of(std::iter::repeat_n(0.1, 1_000_000));
    assert_eq!(many.sum(), 100_000.0);
}

#[test]
fn the_mean_stays_among_the_values() {
    assert_eq!(Aggregate::of([0.1; 3]).value(Op::Avg), Some(0.1));
    assert_eq!(Aggregate::of([5e-324; 3]).value(Op::Avg), Some(5e-324));
    assert_eq!(Aggregate::of([f64::MAX; 3]).value(Op::Avg), Some(f64::MAX));
    assert_eq!(Aggregate::of([f64::MIN; 5]).value(Op::Avg), Some(f64::MIN));
    let half = Aggregate::of([f64::MAX, f64::MAX, f64::MAX, f64::MIN]).value(Op::Avg).unwrap();
    assert!((half / (f64::MAX / 2.0) - 1.0).abs() <= f64::EPSILON, "{half}");
}

#[test]
fn a_sum_out_of_range_answers_the_largest_value_of_its_sign() {
    for sign in [1.0, -1.0] {
        let large = sign * f64::MAX;
        let mut sum = Aggregate::of([large, sign]);
        assert_eq!((sum.sum(), sum.is_saturated()), (large, false), "1 is nothing to it");
        sum = Aggregate::of([large]);
        for _ in 0..9 {
            sum.push(large);
            assert_eq!((sum.sum(), sum.is_saturated()), (large, true));
        }
        for left in (1..=9).rev() {
            assert!(sum.is_saturated(), "{left} too many");
            sum.push(-large);
        }
        assert_eq!((sum.sum(), sum.is_saturated()), (large, false), "the way back is as long as the way out");
        sum.push(-large);
        assert_eq!((sum.sum(), sum.count()), (0.0, 20));
    }
}

#[test]
fn merged_sums_leave_the_range_and_come_back() {
    let mut up = Aggregate::of([f64::MAX; 3]);
    let down = Aggregate::of([f64::MIN; 3]);
    let mut both = up;
    both.merge(&down);
    assert_eq!((both.sum(), both.is_saturated()), (0.0, false));
    up.merge(&up.clone());
    assert_eq!((up.sum(), up.is_saturated(), up.value(Op::Avg)), (f64::MAX, true, Some(f64::MAX)));
}

/// Values of all sizes, some of them equal and opposite.
pub(crate) fn values() -> impl Strategy<Value = Vec<f64>> {
    let size = prop_oneof![Just(1e-300), Just(1.0), Just(1e16), Just(1e300)];
    let value =
        prop_oneof![(-1.0..1.0f64, size).prop_map(|(value, size)| value * size), (-3..3i32).prop_map(f64::from)];
    prop::collection::vec(value, 0..60)
}

proptest! {
    #[test]
    fn against_exact_arithmetic(values in values(), as_slice: bool) {
        let all = if as_slice { Aggregate::of_slice(&values) } else { Aggregate::of(values.iter().copied()) };
        check_sum(&all, &values)?;
        prop_assert_eq!(all.count(), values.len() as u64);
        prop_assert_eq!(all.value(Op::Min), values.iter().copied().reduce(f64::min));
        prop_assert_eq!(all.value(Op::Max), values.iter().copied().reduce(f64::max));
        prop_assert_eq!(all.value(Op::Sum).is_some(), !values.is_empty());
        if let (Some(mean), Some(min), Some(max)) = (all.value(Op::Avg), all.value(Op::Min), all.value(Op::Max)) {
            prop_assert!(min <= mean && mean <= max);
            let allowed = 1e-12 * values.iter().map(|value| value.abs() / values.len() as f64).sum::<f64>();
            prop_assert!((mean - exact_sum(&values) / values.len() as f64).abs() <= allowed.max(5e-324));
        }
    }

    #[test]
    fn merging_in_any_grouping_is_the_same(a in values(), b in values(), c in values()) {
        let [x, y, z] = [&a, &b, &c].map(|part| Aggregate::of(part.iter().copied()));
        let (mut left, mut right, mut yz, mut back) = (x, x, y, z);
        left.merge(&y);
        left.merge(&z);
        yz.merge(&z);
        right.merge(&yz);
        back.merge(&y);
        back.merge(&x);
        let all = [a, b, c].concat();
        for merged in [left, right, back] {
            prop_assert_eq!(merged.count(), all.len() as u64);
            prop_assert_eq!(merged.value(Op::Min), left.value(Op::Min));
            prop_assert_eq!(merged.value(Op::Max), left.value(Op::Max));
            check_sum(&merged, &all)?;
        }
    }

    /// Near the end of the range all values are multiples of 2^970 with a quotient below 2^54: integers, in effect.
    #[test]
    fn sums_near_the_end_of_the_range_are_right(
        values in prop::collection::vec(prop_oneof![any::<f64>().prop_map(f64::signum), -1.0..1.0f64], 1..40),
        split in any::<prop::sample::Index>(),
    ) {
        let unit = 2f64.powi(970);
        let quotients: Vec<i128> = values.iter().map(|value| (value * (f64::MAX / unit)).trunc() as i128).collect();
        let large: Vec<f64> = quotients.iter().map(|quotient| *quotient as f64 * unit).collect();
        let exact: i128 = quotients.iter().sum();
        let allowed = 1e-12 * quotients.iter().map(|quotient| quotient.abs() as f64).sum::<f64>();
        let (front, back) = large.split_at(split.index(large.len()));
        let mut merged = Aggregate::of(front.iter().copied());
        merged.merge(&Aggregate::of(back.iter().copied()));
        for all in [merged, Aggregate::of(large.iter().copied()), Aggregate::of_slice(&large)] {
            let limit = f64::MAX / unit;
            let expected = (exact as f64).clamp(-limit, limit);
            prop_assert!((all.sum() / unit - expected).abs() <= allowed, "sum {} for {expected}", all.sum() / unit);
            if (exact.abs() as f64 - limit).abs() > allowed {
                prop_assert_eq!(all.is_saturated(), exact.abs() as f64 > limit);
            }
            let mean = all.value(Op::Avg).unwrap() / unit;
            let expected = exact as f64 / large.len() as f64;
            prop_assert!((mean - expected).abs() <= allowed / large.len() as f64, "mean {mean} for {expected}");
        }
    }
}
