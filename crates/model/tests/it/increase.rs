//! Counters against plain recomputation, with and without resets, however the parts are put together.

use proptest::prelude::*;
use slung_model::Increase;

const SECOND: i64 = 1_000_000;

fn of(values: &[f64]) -> Option<Increase> {
    let timestamps: Vec<i64> = (0..values.len() as i64).map(|i| i * SECOND).collect();
    Increase::of(&timestamps, values)
}

#[test]
fn resets_are_respected() {
    let rows: [(&[f64], f64); 9] = [
        (&[5.0], 0.0),
        (&[5.0, 5.0, 5.0], 0.0),
        (&[5.0, 8.0, 9.0], 4.0),
        (&[5.0, 8.0, 2.0, 3.0], 6.0),
        (&[5.0, 0.0, 0.0], 0.0),
        (&[5.0, 4.0, 3.0], 7.0),
        (&[1e300, 1.0, 2.0], 2.0),
        (&[1.0, 3.0, -2.0, 1.0], 3.0),
        (&[9e15, 9e15 + 1.0, 9e15 + 2.0, 1.0], 3.0),
    ];
    for (values, expected) in rows {
        let increase = of(values).unwrap();
        assert_eq!(increase.increase(), expected, "{values:?}");
        let seconds = (values.len() - 1) as f64;
        assert_eq!(increase.rate(), (values.len() > 1).then(|| expected / seconds), "{values:?}");
        assert_eq!((increase.first(), increase.last()), (values[0], values[values.len() - 1]));
        assert_eq!((increase.start(), increase.end()), (0, (values.len() as i64 - 1) * SECOND));
    }
    assert_eq!(of(&[]), None);
}

#[test]
fn at_the_ends_of_time_and_of_numbers() {
    let whole = Increase::of(&[i64::MIN, i64::MAX], &[0.0, 1.0]).unwrap();
    assert_eq!(whole.rate(), Some(1e6 / u64::MAX as f64));
    let steep = Increase::of(&[0, 1], &[0.0, f64::MAX]).unwrap();
    assert_eq!(steep.rate(), Some(f64::MAX));
    let far = of(&[f64::MIN, f64::MAX, f64::MIN, f64::MIN, f64::MAX]).unwrap();
    assert!(far.increase().is_finite() && far.rate().unwrap().is_finite());
    let mut sawtooth = of(&[0.0, f64::MAX].repeat(20)).unwrap();
    assert_eq!(sawtooth.increase(), f64::MAX);
    sawtooth.merge_later(&sawtooth.clone());
    assert_eq!(sawtooth.increase(), f64::MAX);
}

#[test]
#[should_panic(expected = "a timestamp for each value")]
fn as_many_timestamps_as_values() {
    let _ = Increase::of(&[1], &[1.0, 2.0]);
}

/// Counters that go up, and now and then anywhere.
fn counter() -> impl Strategy<Value = Vec<f64>> {
    let step = prop_oneof![8 => (0.0..100.0f64).prop_map(Some), 1 => Just(None)];
    (-10.0..1e6f64, prop::collection::vec((step, 0.0..1e6f64), 0..80)).prop_map(|(mut value, steps)| {
        let step = |(step, new): (Option<f64>, f64)| {
            value = step.map_or(new, |step| value + step);
            value
        };
        steps.into_iter().map(step).collect()
    })
}

proptest! {
    #[test]
    fn any_split_is_the_whole(values in counter(), whole: bool, splits in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        let values: Vec<f64> = if whole { values.into_iter().map(f64::round).collect() } else { values };
        let timestamps: Vec<i64> = (0..values.len() as i64).map(|i| i * i * 7 - 100).collect();
        let mut cuts: Vec<usize> = splits.iter().map(|split| split.index(values.len() + 1)).collect();
        cuts.extend([0, values.len()]);
        cuts.sort_unstable();
        let mut merged: Option<Increase> = None;
        for cut in cuts.windows(2) {
            let part = Increase::of(&timestamps[cut[0]..cut[1]], &values[cut[0]..cut[1]]);
            match (&mut merged, part) {
                (Some(merged), Some(part)) => merged.merge_later(&part),
                (merged, part) => *merged = merged.or(part),
            }
        }
        let mut pushed: Option<Increase> = None;
        for (timestamp, value) in timestamps.iter().zip(&values) {
            match &mut pushed {
                Some(pushed) => pushed.push(*timestamp, *value),
                None => pushed = Some(Increase::new(*timestamp, *value)),
            }
        }
        let expected: f64 = values.windows(2).map(|w| if w[1] < w[0] { w[1] } else { w[1] - w[0] }).sum();
        let scale: f64 = values.windows(2).map(|w| w[1].abs().max((w[1] - w[0]).abs())).sum();
        let all = Increase::of(&timestamps, &values);
        for got in [all, merged, pushed] {
            let Some(got) = got else {
                prop_assert!(values.is_empty());
                continue;
            };
            let allowed = if whole { 0.0 } else { 1e-12 * scale };
            prop_assert!((got.increase() - expected).abs() <= allowed, "{} for {expected}", got.increase());
            prop_assert_eq!((got.start(), Some(&got.end())), (timestamps[0], timestamps.last()));
            prop_assert_eq!((got.first(), Some(&got.last())), (values[0], values.last()));
            prop_assert_eq!(got.rate().is_some(), values.len() > 1);
        }
    }
}
