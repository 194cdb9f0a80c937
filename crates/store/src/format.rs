//! The log's bytes: made here, and believed nowhere before they were checked here. `docs/format/log.md` describes them.

use slung_model::{Point, SeriesId, SeriesKey};

/// The format that this version writes. It reads version 1 as well, a log of one file that differs in nothing else.
pub(crate) const VERSION: u32 = 2;
/// What stands at the beginning of the file.
pub(crate) const FILE_HEADER_BYTES: usize = 32;
/// What stands at the beginning of each record.
pub(crate) const RECORD_HEADER_BYTES: usize = 32;
/// No place in a log is beyond this, so that adding lengths to it can't overflow.
pub(crate) const PLACE_MAX: u64 = 1 << 62;
/// One point in an entry of points.
pub(crate) const POINT_BYTES: usize = 20;

/// What a file of records is: a log's, or the one that keeps the definitions of series when the log has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Log,
    Series,
}

impl FileKind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Log => *b"SLUNGLOG",
            Self::Series => *b"SLUNGSER",
        }
    }
}

const KIND_SERIES: u8 = 1;
const KIND_POINTS: u8 = 2;

/// A number drawn when a log is made. Every record's checksum begins with it, so that neither a record of another log nor
/// bytes that a client chose can pass for one of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogId(pub(crate) u64);

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invalid(pub(crate) &'static str);

/// Why a file's header is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Newer(u32),
    Invalid(Invalid),
}

impl From<Invalid> for BadHeader {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// What a record's header tells, once checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    body_crc: u32,
    /// The number of the first point in the record, or of the next one to come where it has none.
    pub(crate) first_seq: u64,
    pub(crate) body_bytes: u32,
    /// How many points there are in it.
    pub(crate) points: u32,
}

/// One part of a record's body.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    /// A series becomes known; ids count up from 0.
    Series(SeriesId, SeriesKey),
    /// One write.
    Points(Points<'a>),
}

/// The points of one write, each checked.
#[derive(Debug, Clone)]
pub(crate) struct Points<'a>(std::slice::ChunksExact<'a, u8>);

fn u32_at(bytes: &[u8; 32], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; 32], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// What a file's header vouches for: its bytes but for the checksum, and from version 2 on the file's number, so that two files
/// in each other's place are noticed.
fn header_crc(bytes: &[u8; FILE_HEADER_BYTES], version: u32, number: u64) -> u32 {
    let number = number.to_le_bytes();
    crc(&[&bytes[..12], &bytes[16..], if version == 1 { &[] } else { &number }])
}

/// The first bytes of the file with that number. `base` is the place of the first of them in the log.
pub(crate) fn encode_file_header(kind: FileKind, log: LogId, number: u64, base: u64) -> [u8; FILE_HEADER_BYTES] {
    let mut bytes = [0; FILE_HEADER_BYTES];
    bytes[..8].copy_from_slice(&kind.magic());
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&log.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&base.to_le_bytes());
    let crc = header_crc(&bytes, VERSION, number);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks the first bytes of the file with that number; answers the log's number and the place of the first byte.
pub(crate) fn decode_file_header(kind: FileKind, number: u64, bytes: &[u8]) -> Result<(LogId, u64), BadHeader> {
    let invalid = |what| Err(BadHeader::Invalid(Invalid(what)));
    let Some(bytes) = bytes.first_chunk::<FILE_HEADER_BYTES>() else {
        return invalid("the file is shorter than its header");
    };
    if bytes[..8] != kind.magic() {
        return invalid("the file does not begin as one of its kind does");
    }
    let version = u32_at(bytes, 8);
    match version {
        1..=VERSION => {}
        0 => return invalid("the file's format version was never used"),
        newer => return Err(BadHeader::Newer(newer)),
    }
    if u32_at(bytes, 12) != header_crc(bytes, version, number) {
        return invalid("the checksum of the file's header is wrong, or it is not that of this file");
    }
    let base = u64_at(bytes, 24);
    if base > PLACE_MAX || (version == 1 && base != 0) {
        return invalid("the file's place in its log is none that is used");
    }
    Ok((LogId(u64_at(bytes, 16)), base))
}

/// Fills in the header of a record whose body is complete.
///
/// # Panics
/// Where there is no room for a header, or the body is longer than a u32 tells.
pub(crate) fn seal_record(log: LogId, place: u64, first_seq: u64, points: u32, record: &mut [u8]) {
    let (header, body) = record.split_at_mut(RECORD_HEADER_BYTES);
    let body_bytes = u32::try_from(body.len()).expect("pending_bytes_max keeps it below");
    header[4..8].copy_from_slice(&crc(&[body]).to_le_bytes());
    header[8..16].copy_from_slice(&place.to_le_bytes());
    header[16..24].copy_from_slice(&first_seq.to_le_bytes());
    header[24..28].copy_from_slice(&body_bytes.to_le_bytes());
    header[28..32].copy_from_slice(&points.to_le_bytes());
    let crc = crc(&[&log.0.to_le_bytes(), &header[4..]]);
    header[..4].copy_from_slice(&crc.to_le_bytes());
}

/// The place that a record's header names, unchecked.
pub(crate) fn place_of_record(bytes: &[u8; RECORD_HEADER_BYTES]) -> u64 {
    u64_at(bytes, 8)
}

/// Checks the header of a record that stands at that place.
pub(crate) fn decode_record_header(log: LogId, place: u64, bytes: &[u8]) -> Result<RecordHeader, Invalid> {
    let Some(bytes) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        return Err(Invalid("the file ends within the record's header"));
    };
    // The place comes first: it makes looking for a record at every byte cheap.
    if u64_at(bytes, 8) != place {
        return Err(Invalid("the record's header does not name its own place"));
    }
    if u32_at(bytes, 0) != crc(&[&log.0.to_le_bytes(), &bytes[4..]]) {
        return Err(Invalid("the checksum of the record's header is wrong"));
    }
    Ok(RecordHeader {
        body_crc: u32_at(bytes, 4),
        first_seq: u64_at(bytes, 16),
        body_bytes: u32_at(bytes, 24),
        points: u32_at(bytes, 28),
    })
}

impl RecordHeader {
    /// The whole record's length.
    pub(crate) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// Checks the body's bytes as such.
    pub(crate) fn check_body(&self, body: &[u8]) -> Result<(), Invalid> {
        if crc(&[body]) == self.body_crc { Ok(()) } else { Err(Invalid("the checksum of the record's body is wrong")) }
    }
}

/// How many bytes an entry of so many points takes.
pub(crate) fn points_entry_bytes(points: usize) -> usize {
    points.saturating_mul(POINT_BYTES).saturating_add(5)
}

/// Appends one write.
pub(crate) fn encode_points(points: &[Point], out: &mut Vec<u8>) {
    out.reserve(points_entry_bytes(points.len()));
    out.push(KIND_POINTS);
    out.extend_from_slice(&u32::try_from(points.len()).expect("a write is below 512 MiB").to_le_bytes());
    for point in points {
        let mut bytes = [0; POINT_BYTES];
        bytes[..4].copy_from_slice(&point.series.0.to_le_bytes());
        bytes[4..12].copy_from_slice(&point.timestamp.to_le_bytes());
        bytes[12..].copy_from_slice(&point.value.to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// Appends the definition of a series.
pub(crate) fn encode_series(id: SeriesId, key: &SeriesKey, out: &mut Vec<u8>) {
    out.push(KIND_SERIES);
    out.extend_from_slice(&id.0.to_le_bytes());
    key.encode(out);
}

/// Reads a body, entry by entry, and hands each to `take` once it was checked: values are finite, there are as many points
/// as the header says, nothing is left over. Whether series are known and follow one another is for `take` to say.
pub(crate) fn decode_body(
    header: &RecordHeader,
    body: &[u8],
    mut take: impl FnMut(Entry<'_>) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let mut points_left = header.points;
    let mut rest = body;
    while let Some((&kind, after)) = rest.split_first() {
        let Some((number, after)) = after.split_first_chunk::<4>() else {
            return Err(Invalid("an entry is cut short"));
        };
        let number = u32::from_le_bytes(*number);
        let entry;
        (entry, rest) = match kind {
            KIND_SERIES => {
                let (key, bytes) = SeriesKey::decode(after).map_err(|_| Invalid("a series key is malformed"))?;
                (Entry::Series(SeriesId(number), key), after.get(bytes..).unwrap_or_default())
            }
            KIND_POINTS => {
                points_left = points_left.checked_sub(number).ok_or(Invalid("there are more points than announced"))?;
                let (points, after) = decode_points(number, after)?;
                (Entry::Points(points), after)
            }
            _ => return Err(Invalid("an entry is of an unknown kind")),
        };
        take(entry)?;
    }
    if points_left == 0 { Ok(()) } else { Err(Invalid("there are fewer points than announced")) }
}

fn decode_points(count: u32, bytes: &[u8]) -> Result<(Points<'_>, &[u8]), Invalid> {
    let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(POINT_BYTES));
    let Some((points, after)) = length.and_then(|length| bytes.split_at_checked(length)) else {
        return Err(Invalid("the points are cut short"));
    };
    let points = Points(points.chunks_exact(POINT_BYTES));
    if points.clone().any(|point| !point.value.is_finite()) {
        return Err(Invalid("a point's value is not finite"));
    }
    Ok((points, after))
}

impl Iterator for Points<'_> {
    type Item = Point;

    fn next(&mut self) -> Option<Point> {
        let bytes: &[u8; POINT_BYTES] = self.0.next()?.first_chunk()?;
        let (series, bytes) = bytes.split_first_chunk::<4>()?;
        let (timestamp, value) = bytes.split_first_chunk::<8>()?;
        Some(Point {
            series: SeriesId(u32::from_le_bytes(*series)),
            timestamp: i64::from_le_bytes(*timestamp),
            value: f64::from_le_bytes(*value.first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: LogId = LogId(7);

    fn sealed(points: u32, body: &[u8]) -> Vec<u8> {
        let mut record = vec![0; RECORD_HEADER_BYTES];
        record.extend_from_slice(body);
        seal_record(LOG, 99, 1, points, &mut record);
        record
    }

    /// All that reading does with a record, as the log does it.
    fn read(record: &[u8]) -> Result<(Vec<SeriesKey>, Vec<Point>), Invalid> {
        let header = decode_record_header(LOG, 99, record)?;
        let body = &record[RECORD_HEADER_BYTES..];
        header.check_body(body)?;
        let (mut keys, mut points) = (Vec::new(), Vec::new());
        decode_body(&header, body, |entry| {
            match entry {
                Entry::Series(_, key) => keys.push(key),
                Entry::Points(more) => points.extend(more),
            }
            Ok(())
        })?;
        Ok((keys, points))
    }

    fn key() -> SeriesKey {
        SeriesKey::new("temp", ["sensor=1", "env=prod"]).unwrap()
    }

    #[test]
    fn extremes_come_back_bit_for_bit() {
        let values = [-0.0, 5e-324, f64::MAX, f64::MIN, f64::MIN_POSITIVE];
        let times = [i64::MIN, i64::MAX, 0, -1, 1];
        let points: Vec<Point> = std::iter::zip(times, values)
            .map(|(timestamp, value)| Point { series: SeriesId(0), timestamp, value })
            .collect();
        let mut body = Vec::new();
        encode_series(SeriesId(0), &key(), &mut body);
        encode_points(&points, &mut body);
        let (keys, read) = read(&sealed(5, &body)).unwrap();
        assert_eq!(keys, [key()]);
        let bits = |points: &[Point]| points.iter().map(|p| (p.timestamp, p.value.to_bits())).collect::<Vec<_>>();
        assert_eq!(bits(&read), bits(&points));
    }

    #[test]
    fn a_body_that_breaks_a_rule_is_refused() {
        let point = |series, value| Point { series: SeriesId(series), timestamp: 1, value };
        let points = |points: &[Point]| {
            let mut body = Vec::new();
            encode_points(points, &mut body);
            body
        };
        let series = |id| {
            let mut body = Vec::new();
            encode_series(SeriesId(id), &key(), &mut body);
            body
        };
        let good = points(&[point(0, 1.0), point(1, 2.0)]);
        assert!(read(&sealed(2, &good)).is_ok());
        for (announced, body, reason) in [
            (1, points(&[point(0, f64::NAN)]), "a point's value is not finite"),
            (1, points(&[point(0, f64::INFINITY)]), "a point's value is not finite"),
            (1, good.clone(), "there are more points than announced"),
            (3, good.clone(), "there are fewer points than announced"),
            (2, good[..good.len() - 1].to_vec(), "the points are cut short"),
            (u32::MAX, vec![2, 255, 255, 255, 255], "the points are cut short"),
            (0, vec![2, 0, 0, 0], "an entry is cut short"),
            (0, vec![3, 0, 0, 0, 0], "an entry is of an unknown kind"),
            (0, series(2)[..20].to_vec(), "a series key is malformed"),
        ] {
            assert_eq!(read(&sealed(announced, &body)), Err(Invalid(reason)));
        }
    }

    #[test]
    fn a_record_belongs_to_its_place_and_its_log() {
        let record = sealed(0, &[]);
        assert!(decode_record_header(LOG, 99, &record).is_ok());
        assert!(decode_record_header(LOG, 98, &record).is_err());
        assert!(decode_record_header(LogId(8), 99, &record).is_err());
    }

    #[test]
    fn a_newer_file_is_told_from_a_broken_one() {
        let decode = |bytes: &[u8]| decode_file_header(FileKind::Log, 5, bytes);
        let good = encode_file_header(FileKind::Log, LOG, 5, 77);
        assert_eq!(decode(&good), Ok((LOG, 77)));
        let mut newer = good;
        newer[8] = 3;
        assert_eq!(decode(&newer), Err(BadHeader::Newer(3)));
        let mut flipped = good;
        flipped[20] ^= 1;
        assert!(matches!(decode(&flipped), Err(BadHeader::Invalid(_))));
        assert!(matches!(decode(&good[..31]), Err(BadHeader::Invalid(_))));
        assert!(matches!(decode_file_header(FileKind::Series, 5, &good), Err(BadHeader::Invalid(_))));
        assert!(matches!(decode_file_header(FileKind::Log, 6, &good), Err(BadHeader::Invalid(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_file_header(FileKind::Log, 5, &bytes);
            let _ = decode_record_header(LOG, 99, &bytes);
        }

        /// Behind a checksum that is right: the checks of the content must hold by themselves.
        #[test]
        fn arbitrary_bodies_never_panic(
            announced in 0u32..20,
            entries in proptest::collection::vec((0u8..4, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..5),
        ) {
            let mut body = Vec::new();
            for (kind, number, bytes) in entries {
                body.extend_from_slice(&[kind, number % 4, 0, 0, 0]);
                body.extend_from_slice(&bytes);
            }
            if let Ok((_, points)) = read(&sealed(announced, &body)) {
                prop_assert_eq!(points.len(), announced as usize);
                prop_assert!(points.iter().all(|point| point.value.is_finite()));
            }
        }
    }
}
