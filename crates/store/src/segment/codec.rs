//! The points of a chunk, as bytes: two columns, each by whatever makes it smallest among a few simple ways and pco.

use pco::errors::PcoResult;
use pco::metadata::DeltaEncoding;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DecompressorScratch, DeltaSpec};
use slung_model::{Op, Summary};

use super::CHUNK_POINTS_MAX;
use crate::fields::Fields;
use crate::format::Invalid;

/// How much work went into a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effort {
    /// Written while new points wait: pco's level 4.
    Flush,
    /// Worth keeping for years: pco's level 8, or where that would not be smaller.
    Compaction,
}

/// The points of a chunk, with room that serves one chunk after the other.
#[derive(Default)]
pub(crate) struct Columns {
    /// Microseconds since the Unix epoch, strictly rising.
    pub(crate) timestamps: Vec<i64>,
    /// As many, each finite.
    pub(crate) values: Vec<f64>,
    /// A payload.
    pub(super) bytes: Vec<u8>,
    scratch: DecompressorScratch,
}

// Timestamps: 0, or 1 to 8, or 9.
const REGULAR: u8 = 0;
const DELTA_BYTES_MAX: u8 = 8;
const PCO_TIMESTAMPS: u8 = 9;

// Values.
const CONSTANT: u8 = 0;
const RAW: u8 = 1;
const PCO_VALUES: u8 = 2;

/// No payload is longer: 2 bytes that say how, and columns that are no longer than raw ones.
pub(super) const PAYLOAD_BYTES_MAX: usize = 2 + 2 * size_of::<u64>() * CHUNK_POINTS_MAX;
/// Where pco begins to pay: its own overhead is 20 to 30 bytes a column.
const PCO_POINTS_MIN: usize = 24;
/// From so many bytes a value on, level 8 saves at most 1 % and takes three times as long as level 4.
const HARD_BYTES: usize = 3;

/// Appends the payload of a chunk of 2 to [`CHUNK_POINTS_MAX`] points; tells how much effort it is worth.
pub(super) fn encode(timestamps: &[i64], values: &[f64], effort: Effort, out: &mut Vec<u8>) -> Effort {
    let head = out.len();
    out.extend([0, 0]);
    let how_timestamps = encode_timestamps(timestamps, effort, out);
    let (how_values, values_effort) = encode_values(values, effort, out);
    out[head..head + 2].copy_from_slice(&[how_timestamps, how_values]);
    if how_timestamps == PCO_TIMESTAMPS { effort } else { values_effort }
}

fn encode_timestamps(timestamps: &[i64], effort: Effort, out: &mut Vec<u8>) -> u8 {
    // Timestamps rise: each difference fits a u64, even that of the two ends of time.
    let deltas = || timestamps.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]).cast_unsigned());
    let (min, max) = deltas().fold((u64::MAX, 0), |(min, max), delta| (delta.min(min), delta.max(max)));
    if min == max {
        return REGULAR;
    }
    let start = out.len();
    let delta_bytes = max.ilog2() as usize / 8 + 1;
    let simple_bytes = (timestamps.len() - 1) * delta_bytes;
    if timestamps.len() >= PCO_POINTS_MIN {
        // What differences of the first order can't shorten, those of higher orders did not either in any set we tried.
        let config = config(effort).with_delta_spec(DeltaSpec::TryConsecutive(1));
        let encoded = encode_pco(timestamps, &config, out);
        if encoded.is_ok() && out.len() - start <= simple_bytes {
            return PCO_TIMESTAMPS;
        }
        out.truncate(start);
    }
    for delta in deltas() {
        out.extend_from_slice(&delta.to_le_bytes()[..delta_bytes]);
    }
    u8::try_from(delta_bytes).expect("a u64 has 8 bytes")
}

fn encode_values(values: &[f64], effort: Effort, out: &mut Vec<u8>) -> (u8, Effort) {
    if values.windows(2).all(|pair| pair[0].to_bits() == pair[1].to_bits()) {
        return (CONSTANT, Effort::Compaction);
    }
    let start = out.len();
    let raw_bytes = size_of_val(values);
    if values.len() >= PCO_POINTS_MIN
        && let Ok(delta) = encode_pco(values, &config(Effort::Flush), out)
    {
        let is_hard = out.len() - start >= HARD_BYTES * values.len();
        if effort == Effort::Compaction && !is_hard {
            let flush_bytes = out.len() - start;
            let again = encode_pco(values, &config(effort).with_delta_spec(delta), out);
            if again.is_ok() && out.len() - start - flush_bytes < flush_bytes {
                out.drain(start..start + flush_bytes);
            } else {
                out.truncate(start + flush_bytes);
            }
        }
        if out.len() - start <= raw_bytes {
            return (PCO_VALUES, if is_hard { Effort::Compaction } else { effort });
        }
    }
    out.truncate(start);
    values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    (RAW, Effort::Compaction)
}

fn config(effort: Effort) -> ChunkConfig {
    ChunkConfig::default().with_compression_level(match effort {
        Effort::Flush => 4,
        Effort::Compaction => 8,
    })
}

/// Appends a column: pco's version, the description of its one chunk, its one page. Answers how it took differences,
/// which is the expensive thing to find out.
fn encode_pco<T: pco::data_types::Number>(
    column: &[T],
    config: &ChunkConfig,
    out: &mut Vec<u8>,
) -> PcoResult<DeltaSpec> {
    let pco = FileCompressor::default();
    let mut chunk = pco.chunk_compressor(column, config)?;
    pco.write_header(&mut *out)?;
    chunk.write_meta(&mut *out)?;
    chunk.write_page(0, out)?;
    Ok(match chunk.meta().delta_encoding {
        DeltaEncoding::NoOp => DeltaSpec::NoOp,
        DeltaEncoding::Consecutive { order, .. } => DeltaSpec::TryConsecutive(order),
        _ => DeltaSpec::Auto,
    })
}

/// Reads the payload of a chunk, and believes only what agrees with its summary.
pub(super) fn decode(summary: &Summary, payload: &[u8], columns: &mut Columns) -> Result<(), Invalid> {
    let Columns { timestamps, values, scratch, .. } = columns;
    let count = usize::try_from(summary.count()).ok().filter(|count| (2..=CHUNK_POINTS_MAX).contains(count));
    let count = count.ok_or(Invalid("a chunk has a number of points that no chunk has"))?;
    timestamps.resize(count, 0);
    values.resize(count, 0.0);
    let mut fields = Fields(payload);
    let (how_timestamps, how_values) = (fields.u8()?, fields.u8()?);
    let payload = match how_timestamps {
        // These rise by the way they are made.
        REGULAR => decode_regular(summary, timestamps).map(|()| fields)?,
        1..=DELTA_BYTES_MAX => decode_deltas(summary, usize::from(how_timestamps), fields, timestamps)?,
        PCO_TIMESTAMPS => decode_pco(fields, timestamps, scratch)?,
        _ => return Err(Invalid("a chunk's timestamps are of an unknown kind")),
    };
    // Not `all`, which stops at the first and so does not run several at once.
    if how_timestamps != REGULAR && timestamps.windows(2).fold(false, |falls, pair| falls | (pair[0] >= pair[1])) {
        return Err(NOT_RISING);
    }
    let rest = match how_values {
        CONSTANT => {
            values.fill(summary.first());
            payload
        }
        RAW => decode_raw(payload, values)?,
        PCO_VALUES => decode_pco(payload, values, scratch)?,
        _ => return Err(Invalid("a chunk's values are of an unknown kind")),
    };
    rest.end()?;
    check(summary, timestamps, values)
}

fn decode_regular(summary: &Summary, timestamps: &mut [i64]) -> Result<(), Invalid> {
    let (span, steps) = (summary.end().abs_diff(summary.start()), timestamps.len() as u64 - 1);
    let step = (span / steps).cast_signed();
    if step == 0 {
        return Err(NOT_RISING);
    }
    let mut at = summary.start();
    for timestamp in timestamps {
        *timestamp = at;
        at = at.wrapping_add(step);
    }
    Ok(())
}

fn decode_deltas<'a>(
    summary: &Summary,
    delta_bytes: usize,
    mut payload: Fields<'a>,
    timestamps: &mut [i64],
) -> Result<Fields<'a>, Invalid> {
    let (first, later) = timestamps.split_first_mut().ok_or(Invalid("a chunk is empty"))?;
    let bytes = payload.bytes(later.len() * delta_bytes)?;
    *first = summary.start();
    let mut at = *first;
    for (timestamp, delta) in later.iter_mut().zip(bytes.chunks_exact(delta_bytes)) {
        let mut word = [0; 8];
        word[..delta_bytes].copy_from_slice(delta);
        // One that goes around the end of time does not rise, and is caught as such.
        at = at.wrapping_add(i64::from_le_bytes(word));
        *timestamp = at;
    }
    Ok(payload)
}

fn decode_raw<'a>(mut payload: Fields<'a>, values: &mut [f64]) -> Result<Fields<'a>, Invalid> {
    for value in values {
        *value = payload.f64()?;
    }
    Ok(payload)
}

/// Reads a column and answers what follows it. pco takes memory for what the bytes announce before it sees whether they
/// keep it, so the two announcements that could be large and that we never write are refused first: a dictionary of up
/// to 256 MiB, and a window that is longer than the chunk.
fn decode_pco<'a, T: pco::data_types::Number>(
    payload: Fields<'a>,
    column: &mut [T],
    scratch: &mut DecompressorScratch,
) -> Result<Fields<'a>, Invalid> {
    const DICTIONARY: u8 = 4;
    let corrupt = |_| Invalid("a chunk's column can't be decompressed");
    let (pco, rest) = FileDecompressor::new(payload.0).map_err(corrupt)?;
    if rest.first().is_some_and(|byte| byte & 0x0f == DICTIONARY) {
        return Err(Invalid("a chunk's column has a dictionary"));
    }
    let (chunk, rest) = pco.chunk_decompressor::<T, _>(rest).map_err(corrupt)?;
    if let DeltaEncoding::Lookback { config, .. } = chunk.meta().delta_encoding
        && config.window_n_log > CHUNK_POINTS_MAX.ilog2()
    {
        return Err(Invalid("a chunk's column looks back further than the chunk is long"));
    }
    let mut page = chunk.page_decompressor_with_scratch(rest, column.len(), scratch).map_err(corrupt)?;
    let progress = page.read(column).map_err(corrupt)?;
    if progress.n_processed != column.len() || !progress.finished {
        return Err(Invalid("a chunk's column is too short"));
    }
    Ok(Fields(page.into_src()))
}

const NOT_RISING: Invalid = Invalid("a chunk's timestamps do not rise");

/// Everything else that a reader relies on.
fn check(summary: &Summary, timestamps: &[i64], values: &[f64]) -> Result<(), Invalid> {
    if timestamps.first() != Some(&summary.start()) || timestamps.last() != Some(&summary.end()) {
        return Err(Invalid("a chunk's timestamps are not those of its summary"));
    }
    let ends = [(values.first(), summary.first()), (values.last(), summary.last())];
    let same_ends = ends.iter().all(|(found, known)| found.is_some_and(|found| found.to_bits() == known.to_bits()));
    let (min, max) = min_max(values).ok_or(Invalid("a chunk's value is not finite"))?;
    let known = [Op::Min, Op::Max].map(|op| summary.aggregate().value(op));
    if !same_ends || known != [Some(min), Some(max)] {
        return Err(Invalid("a chunk's values are not those of its summary"));
    }
    Ok(())
}

/// The smallest and the largest; `None` where one is not finite. In lanes, so that the processor looks at several at once.
fn min_max(values: &[f64]) -> Option<(f64, f64)> {
    const LANES: usize = 8;
    let (mut min, mut max, mut zero) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES], [0.0; LANES]);
    let (groups, rest) = values.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            min[lane] = if group[lane] < min[lane] { group[lane] } else { min[lane] };
            max[lane] = if group[lane] > max[lane] { group[lane] } else { max[lane] };
            // What is not finite gives no number, and so does all that this is added to.
            zero[lane] += group[lane] * 0.0;
        }
    }
    let is_finite = zero == [0.0; LANES] && rest.iter().all(|value| value.is_finite());
    let least = min.iter().chain(rest).fold(f64::INFINITY, |a, b| a.min(*b));
    let greatest = max.iter().chain(rest).fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    is_finite.then_some((least, greatest))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use pco::ModeSpec;
    use proptest::prelude::*;

    use super::*;

    fn encoded(timestamps: &[i64], values: &[f64], effort: Effort) -> (Vec<u8>, Effort) {
        let mut payload = Vec::new();
        let effort = encode(timestamps, values, effort, &mut payload);
        (payload, effort)
    }

    fn decoded(timestamps: &[i64], values: &[f64], payload: &[u8]) -> Result<(Vec<i64>, Vec<f64>), Invalid> {
        let mut columns = Columns::default();
        let summary = Summary::of(timestamps, values).unwrap();
        decode(&summary, payload, &mut columns).map(|()| (columns.timestamps, columns.values))
    }

    /// Both columns come back; answers how they were kept, and in how many bytes.
    fn kept(timestamps: &[i64], values: &[f64], effort: Effort) -> (u8, u8, usize) {
        let (payload, _) = encoded(timestamps, values, effort);
        let decoded = decoded(timestamps, values, &payload).unwrap();
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!((&decoded.0[..], bits(&decoded.1)), (timestamps, bits(values)));
        (payload[0], payload[1], payload.len())
    }

    fn noise(count: usize) -> Vec<f64> {
        let mut random = 1_u64;
        std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 11) as f64 / (1_u64 << 53) as f64 * 100.0
        })
        .take(count)
        .collect()
    }

    #[test]
    fn each_column_is_kept_in_the_smallest_way() {
        let regular: Vec<i64> = (0..1_000).map(|i| 1_700_000_000_000_000 + i * 1_000).collect();
        let jitter: Vec<i64> = regular.iter().map(|at| at + at / 1_000 * 37 % 101).collect();
        let waves: Vec<f64> = (0..1_000).map(|i| f64::from(i % 50) / 4.0).collect();
        for effort in [Effort::Flush, Effort::Compaction] {
            assert_eq!(kept(&regular, &[-0.0; 1_000], effort), (REGULAR, CONSTANT, 2));
            let (how, values, bytes) = kept(&jitter, &waves, effort);
            assert_eq!((how, values), (PCO_TIMESTAMPS, PCO_VALUES));
            assert!(bytes < 2_500, "{bytes}");
            let (how, values, bytes) = kept(&regular, &noise(1_000), effort);
            assert_eq!((how, values), (REGULAR, PCO_VALUES));
            assert!(bytes < 7_200, "{bytes}");
            assert_eq!(kept(&[1, 2, 4], &[1.0, 2.0, 3.0], effort), (1, RAW, 2 + 2 + 24));
            assert_eq!(kept(&[i64::MIN, 0, i64::MAX], &[1.0, 2.0, 3.0], effort), (8, RAW, 2 + 16 + 24));
            assert_eq!(kept(&[i64::MIN, i64::MAX], &[f64::MIN, f64::MAX], effort), (REGULAR, RAW, 2 + 16));
        }
    }

    #[test]
    fn what_more_effort_can_not_improve_says_so() {
        let regular: Vec<i64> = (0..1_000).collect();
        let waves: Vec<f64> = (0..1_000).map(|i| f64::from(i * i % 50) / 4.0).collect();
        assert_eq!(encoded(&regular, &noise(1_000), Effort::Flush).1, Effort::Compaction);
        assert_eq!(encoded(&regular, &[1.0; 1_000], Effort::Flush).1, Effort::Compaction);
        assert_eq!(encoded(&regular, &waves, Effort::Flush).1, Effort::Flush);
        assert_eq!(encoded(&regular, &waves, Effort::Compaction).1, Effort::Compaction);
    }

    #[test]
    fn points_that_break_a_rule_are_refused_behind_a_right_checksum() {
        let (timestamps, values) = ([1, 2, 4], [1.0, 2.0, 3.0]);
        let (good, _) = encoded(&timestamps, &values, Effort::Flush);
        let changed = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            bad
        };
        for (payload, reason) in [
            (changed(2, &[2]), "a chunk's timestamps are not those of its summary"),
            (changed(2, &[0, 3]), "a chunk's timestamps do not rise"),
            (changed(4, &2_f64.to_le_bytes()), "a chunk's values are not those of its summary"),
            (changed(12, &f64::NAN.to_le_bytes()), "a chunk's value is not finite"),
            (changed(12, &4_f64.to_le_bytes()), "a chunk's values are not those of its summary"),
            (changed(0, &[10]), "a chunk's timestamps are of an unknown kind"),
            (changed(1, &[3]), "a chunk's values are of an unknown kind"),
            (changed(0, &[REGULAR]), "there is more than there should be"),
            (good[..good.len() - 1].to_vec(), "it is cut short"),
            (vec![], "it is cut short"),
        ] {
            assert_eq!(decoded(&timestamps, &values, &payload).unwrap_err(), Invalid(reason));
        }
        // As many points as no chunk has.
        let many: Vec<i64> = (0..=CHUNK_POINTS_MAX as i64).collect();
        assert!(decoded(&many, &vec![1.0; many.len()], &[REGULAR, CONSTANT]).is_err());
    }

    /// Columns that pco would take much memory for, although they hold little.
    #[test]
    fn columns_that_announce_much_are_refused() {
        let timestamps: Vec<i64> = (0..1_000).collect();
        let values: Vec<f64> = noise(10).into_iter().cycle().take(1_000).collect();
        let mut payload = vec![REGULAR, PCO_VALUES];
        encode_pco(&values, &config(Effort::Flush).with_mode_spec(ModeSpec::TryDict), &mut payload).unwrap();
        let refused = decoded(&timestamps, &values, &payload).unwrap_err();
        assert_eq!(refused, Invalid("a chunk's column has a dictionary"));

        let lookback = config(Effort::Flush).with_mode_spec(ModeSpec::Classic).with_delta_spec(DeltaSpec::TryLookback);
        let mut payload = vec![REGULAR, PCO_VALUES];
        let long: Vec<f64> = noise(1_000).into_iter().cycle().take(1 << 14).collect();
        encode_pco(&long, &lookback, &mut payload).unwrap();
        let refused = decoded(&timestamps, &values, &payload).unwrap_err();
        assert_eq!(refused, Invalid("a chunk's column looks back further than the chunk is long"));
        // One that is as long as the chunk is fine.
        let mut payload = vec![REGULAR, PCO_VALUES];
        encode_pco(&values, &lookback, &mut payload).unwrap();
        assert_eq!(decoded(&timestamps, &values, &payload), Ok((timestamps, values)));
    }

    /// Timestamps, values, payload.
    type Kept = (Vec<i64>, Vec<f64>, Vec<u8>);

    /// All ways of pco to keep a column: what bytes may announce, whether or not we write it.
    fn payloads() -> Vec<Kept> {
        let timestamps: Vec<i64> = (0..700).map(|i| i * 1_000 + i * i % 13 * 50).collect();
        let values: Vec<f64> = (0..700).map(|i| f64::from(i * i % 97) / 4.0).collect();
        let modes = [
            ModeSpec::Classic,
            ModeSpec::TryFloatMult(0.25),
            ModeSpec::TryFloatQuant(20),
            ModeSpec::TryDict,
            ModeSpec::Auto,
        ];
        let deltas = [DeltaSpec::NoOp, DeltaSpec::TryConsecutive(2), DeltaSpec::TryLookback];
        let mut payloads = Vec::new();
        for (mode, delta) in modes.iter().flat_map(|mode| deltas.iter().map(move |delta| (mode, delta))) {
            let config = config(Effort::Flush).with_mode_spec(mode.clone()).with_delta_spec(delta.clone());
            let mut payload = vec![PCO_TIMESTAMPS, PCO_VALUES];
            let times = ChunkConfig::default().with_delta_spec(delta.clone());
            encode_pco(&timestamps, &times, &mut payload).unwrap();
            encode_pco(&values, &config, &mut payload).unwrap();
            payloads.push((timestamps.clone(), values.clone(), payload));
        }
        payloads
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            how in (0..11_u8, 0..4_u8),
            count in prop_oneof![2..50_i64, Just(CHUNK_POINTS_MAX as i64)],
        ) {
            let timestamps: Vec<i64> = (0..count).collect();
            let values = vec![1.0; timestamps.len()];
            // With the version that pco writes, for it refuses most others.
            let payload = [&[how.0, how.1, 4, 1], &payload[..]].concat();
            let _ = decoded(&timestamps, &values, &payload);
        }

        /// Most of it makes sense: the heads of columns are where lengths stand, so most changes go there.
        #[test]
        fn changed_payloads_never_panic(
            which in any::<prop::sample::Index>(),
            changes in proptest::collection::vec((0..4_096_usize, any::<u8>(), any::<bool>()), 1..5),
            cut in proptest::option::weighted(0.1, any::<prop::sample::Index>()),
        ) {
            static PAYLOADS: LazyLock<Vec<Kept>> = LazyLock::new(payloads);
            let (timestamps, values, payload) = which.get(&PAYLOADS);
            let mut payload = payload.clone();
            for (at, byte, in_head) in changes {
                let at = at % if in_head { 64 } else { payload.len() };
                payload[at] = byte;
            }
            if let Some(cut) = cut {
                payload.truncate(cut.index(payload.len()));
            }
            // What passes has as many points as the summary says, which rise and end where it says.
            if let Ok((found, found_values)) = decoded(timestamps, values, &payload) {
                prop_assert_eq!((found.len(), found_values.len()), (timestamps.len(), values.len()));
                prop_assert!(found.is_sorted_by(|a, b| a < b) && found.last() == timestamps.last());
            }
        }
    }
}
