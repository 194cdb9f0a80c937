//! What the benches share: how large they are, random numbers, and the load that the figures of other engines are of.
#![forbid(unsafe_code)]

pub mod cost;

use std::io::{Error, Result};
use std::path::{Path, PathBuf};

use slung_model::{Point, SeriesId, SeriesKey};

/// The first timestamp, microseconds since the Unix epoch.
pub const START: i64 = 1_700_000_000_000_000;
/// From one event to the next, microseconds.
pub const STEP: i64 = 1_000;

/// `full` where figures are wanted (`cargo bench`), `small` where the benches run as tests (`cargo test`).
pub fn size(full: usize, small: usize) -> usize {
    let has = |flag| std::env::args().any(|argument| argument == flag);
    if has("--bench") && !has("--test") { full } else { small }
}

/// Random numbers, the same in each run: splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014).
#[derive(Debug, Clone, Default)]
pub struct Random(u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 100, all 53 bits of it random.
    pub fn value(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (100.0 / (1_u64 << 53) as f64)
    }

    /// From 0 up to, not including, `end`, which is small: what that makes uneven is not to be seen.
    ///
    /// # Panics
    /// Where `end` is not above 0.
    pub fn below(&mut self, end: i64) -> i64 {
        let end = u64::try_from(end).expect("above 0");
        i64::try_from(self.bits() % end).expect("below an i64")
    }
}

/// A workflow that was built before: xtask says where, if it is not the usual place.
///
/// # Errors
/// It is not there.
pub fn workflow(name: &str) -> Result<PathBuf> {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/workflows");
    let path = std::env::var_os("SLUNG_WORKFLOWS_DIR").map_or_else(usual, PathBuf::from).join(format!("{name}.wasm"));
    let missing = |error| Error::other(format!("{}: {error}; run `cargo xtask build-workflows`", path.display()));
    path.canonicalize().map_err(missing)
}

/// The key of a host's series in the load W, `cpu.total` with three tags.
///
/// # Panics
/// Never: the key is within all limits.
pub fn key(host: u32) -> SeriesKey {
    let tags = ["env=prod".to_owned(), "service=db".to_owned(), format!("host=h-{host}")];
    SeriesKey::new("cpu.total", tags).expect("within the limits")
}

/// The load W: so many series in turn, timestamps that count up, random values.
pub fn load(series: u32) -> impl Iterator<Item = Point> {
    let mut random = Random::default();
    let timestamps = (START..).step_by(STEP.unsigned_abs() as usize);
    std::iter::zip((0..series).cycle(), timestamps).map(move |(series, timestamp)| Point {
        series: SeriesId(series),
        timestamp,
        value: random.value(),
    })
}
