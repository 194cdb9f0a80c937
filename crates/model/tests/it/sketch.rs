//! Quantiles of a sketch against those of the sorted values.

use proptest::prelude::*;
use slung_model::{Quantile, Sketch};

const PERCENTS: [&str; 10] = ["0.001", "1", "10", "25", "50", "75", "90", "99", "99.9", "99.999"];

fn quantile(percent: &str) -> Quantile {
    Quantile::from_percent(percent).expect("a percentage")
}

fn of(values: &[f64]) -> Sketch {
    let mut sketch = Sketch::default();
    values.iter().for_each(|value| sketch.push(*value));
    sketch
}

fn check(sketch: &Sketch, values: &[f64]) {
    assert_eq!(sketch.count(), values.len() as u64);
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    for percent in PERCENTS {
        let quantile = quantile(percent);
        let Some(found) = sketch.quantile(quantile) else {
            assert!(sorted.is_empty());
            continue;
        };
        let exact = sorted[quantile.rank(sorted.len() as u64) as usize - 1];
        let next_number = if exact.abs() < f64::MIN_POSITIVE { 5e-324 } else { 0.0 };
        let allowed = Sketch::RELATIVE_ERROR * exact.abs() + next_number;
        assert!((found - exact).abs() <= allowed, "P{percent} is {exact:e}, found {found:e}");
        assert!(sorted[0] <= found && found <= sorted[sorted.len() - 1]);
    }
}

#[test]
fn of_nothing_and_of_one() {
    assert_eq!(Sketch::default().quantile(quantile("50")), None);
    for value in [0.0, 1.0, -7.3, 5e-324, -5e-324, f64::MAX, f64::MIN, f64::MIN_POSITIVE] {
        for count in [1, 2, 3, 100] {
            let sketch = of(&vec![value; count]);
            assert_eq!(sketch.quantile(quantile("50")), Some(value));
            assert_eq!(sketch.quantile(quantile("99")), Some(value));
        }
    }
}

#[test]
fn the_smallest_and_the_largest_are_exact() {
    let sketch = of(&[3.3, -4.4, 7.7]);
    assert_eq!(sketch.quantile(quantile("1")), Some(-4.4));
    assert_eq!(sketch.quantile(quantile("99")), Some(7.7));
}

#[test]
fn numbers_of_every_size() {
    // Every power of two that there is, on both sides of 0, each way round.
    let mut values: Vec<f64> = (-1074..1024).flat_map(|exponent| [2f64.powi(exponent), -2f64.powi(exponent)]).collect();
    values.extend([f64::MAX, f64::MIN, 0.0, -0.0, 5e-324]);
    check(&of(&values), &values);
    values.reverse();
    check(&of(&values), &values);
    values.sort_by(f64::total_cmp);
    check(&of(&values), &values);
    // The ends alone, and close to them.
    for ends in [[5e-324, f64::MAX], [-5e-324, f64::MIN]] {
        let values = ends.repeat(50);
        check(&of(&values), &values);
    }
    let top: Vec<f64> = (0..500).map(|i| f64::MAX * (1.0 - f64::from(i) / 1e4)).collect();
    check(&of(&top), &top);
    let subnormal: Vec<f64> = (1..3_000).map(|i| f64::from(i) * 5e-324).collect();
    check(&of(&subnormal), &subnormal);
}

/// Values at the very edges of buckets, where the logarithm may be rounded either way.
#[test]
fn edges_of_buckets() {
    for index in (-74_000..71_000).step_by(7) {
        let edge = 1.01f64.powi(index);
        let values = [edge / 2.0, edge, edge.next_up(), edge.next_down(), edge * 2.0];
        if values.iter().all(|value| value.is_normal()) {
            check(&of(&values), &values);
        }
    }
}

#[test]
fn latencies_of_a_service() {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let values: Vec<f64> = (0..100_000).map(|_| 0.002 * (1.0 - random()).powf(-0.7)).collect();
    let sketch = of(&values);
    check(&sketch, &values);
    let mut merged = Sketch::default();
    values.chunks(999).for_each(|chunk| merged.merge(&of(chunk)));
    assert_eq!(merged, sketch);
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    let any = any::<f64>().prop_filter("finite", |value| value.is_finite());
    let size = prop_oneof![Just(1e-310), Just(1e-9), Just(1.0), Just(1e16)];
    let near = (-1.0..1.0f64, size).prop_map(|(value, size)| value * size);
    prop::collection::vec(prop_oneof![1 => any, 6 => near, 1 => (-3..3i32).prop_map(f64::from)], 0..120)
}

proptest! {
    #[test]
    fn within_the_stated_error(values in values()) {
        check(&of(&values), &values);
    }

    #[test]
    fn merging_is_counting_all(a in values(), b in values()) {
        let (mut ab, mut ba) = (of(&a), of(&b));
        ab.merge(&ba);
        ba.merge(&of(&a));
        let all = [a, b].concat();
        prop_assert_eq!(&ab, &of(&all));
        prop_assert_eq!(&ba, &ab);
        check(&ab, &all);
    }

    #[test]
    fn what_is_forgotten_was_never_there(gone in values(), left in values()) {
        let mut sketch = of(&[gone.clone(), left.clone()].concat());
        gone.iter().for_each(|value| sketch.remove(*value));
        prop_assert_eq!(sketch.count(), left.len() as u64);
        if let Some(min) = left.iter().copied().reduce(f64::min) {
            sketch.set_range(min, left.iter().copied().fold(min, f64::max));
            prop_assert_eq!(&sketch, &of(&left));
            check(&sketch, &left);
        } else {
            prop_assert_eq!(sketch.quantile(slung_model::Quantile::from_percent("50").unwrap()), None);
            // There is nothing left to forget.
            sketch.remove(1.0);
            prop_assert_eq!(sketch.count(), 0);
        }
    }

    #[test]
    fn one_that_is_emptied_is_as_new(a in values(), b in values()) {
        let mut sketch = of(&a);
        a.iter().for_each(|value| sketch.remove(*value));
        prop_assert!(sketch == Sketch::default());
        b.iter().for_each(|value| sketch.push(*value));
        prop_assert!(sketch == of(&b));
    }
}
