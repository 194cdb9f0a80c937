//! Which segments there are at one moment. Snapshots share it, and what they hold stays readable after its file has gone.

use std::sync::Arc;

use slung_model::{SeriesId, TimeRange};

use crate::Damage;
use crate::Error;
use crate::pieces::{Piece, intact};
use crate::segment::Segment;

pub(crate) struct Version {
    /// By rising generation: a later one's points replace those of earlier ones.
    segments: Vec<Arc<Segment>>,
    /// What is missing because its file was damaged.
    pub(crate) lost: Vec<Damage>,
    /// Points before this time have been given up.
    pub(crate) floor: i64,
}

impl Version {
    pub(crate) fn new(mut segments: Vec<Arc<Segment>>, lost: Vec<Damage>, floor: i64) -> Self {
        segments.sort_by_key(|segment| (segment.meta().generation, segment.meta().start));
        Self { segments, lost, floor }
    }

    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Points on disk; of several with one series and timestamp all count until compaction.
    pub(crate) fn points(&self) -> u64 {
        self.segments.iter().map(|segment| segment.meta().points).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.meta().bytes).sum()
    }

    /// Adds the chunks of a series that overlap the range, in the order in which they were written.
    pub(crate) fn pieces(
        &self,
        series: SeriesId,
        range: TimeRange,
        pieces: &mut Vec<Piece>,
        damage: &mut Vec<Damage>,
    ) -> Result<(), Error> {
        for segment in self.segments.iter().filter(|segment| segment.may_contain(series, range)) {
            for page in segment.chunks(series, range) {
                if let Some(chunks) = intact(page, damage)? {
                    pieces.extend(chunks.map(Piece::Disk));
                }
            }
        }
        Ok(())
    }
}
