//! `slung inspect`: what is in a data directory.

use std::fmt::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use slung_model::TimeRange;
use slung_store::OsVfs;
use slung_store::tools::{self, FileSize, Inspection};

use crate::cli::InspectArgs;
use crate::show::{bytes, count, range, time};

/// Prints what there is; the exit code says whether something is damaged.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let found = tools::inspect(Arc::new(OsVfs), &args.dir).context("nothing to inspect")?;
    if args.json {
        println!("{}", as_json(&found));
    } else {
        let mut text = String::new();
        describe(&found, &mut text).expect("a string takes everything");
        print!("{text}");
    }
    Ok(if found.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bytes_per_point(bytes: u64, points: u64) -> f64 {
    if points == 0 { 0.0 } else { bytes as f64 / points as f64 }
}

fn describe(found: &Inspection, out: &mut String) -> fmt::Result {
    let segment_bytes = found.segment_bytes();
    let in_segments = found.points - found.log_points;
    let (points, series) = (count(found.points, "point", "points"), count(found.series, "series", "series"));
    writeln!(out, "{}: {points} in {series}", found.dir.display())?;
    let per_point = bytes_per_point(segment_bytes, in_segments);
    let segments = count(found.segments.len() as u64, "segment", "segments");
    writeln!(out, "segments    {segments}, {}, {per_point:.2} bytes a point", bytes(segment_bytes))?;
    let files = count(found.log_files.len() as u64, "file", "files");
    let waiting = count(found.log_points, "point", "points");
    writeln!(out, "log         {files}, {}, {waiting} that no segment has yet", bytes(found.log_bytes()))?;
    let (manifest, series) = (bytes(found.manifest_bytes), bytes(found.series_bytes));
    writeln!(out, "manifest    {manifest}; definitions of series {series}")?;
    if let Some(before) = found.given_up_before {
        writeln!(out, "given up    points before {}", time(before))?;
    }
    if let Some(trimmed) = &found.trimmed {
        writeln!(out, "torn end    {trimmed}")?;
    }
    for damage in &found.damage {
        writeln!(out, "damage      {damage}")?;
    }
    for FileSize { name, bytes: size } in &found.quarantine {
        writeln!(out, "quarantine  {name}, {}", bytes(*size))?;
    }
    if !found.largest.is_empty() {
        writeln!(out, "\nlargest series\n{:>14}  series", "points")?;
    }
    for size in &found.largest {
        writeln!(out, "{:>14}  {}", count(size.points, "", "").trim_end(), size.key)?;
    }
    if !found.partitions.is_empty() {
        writeln!(out, "\npartitions\n{:>14}  {:>11}  {:>8}  from, to", "points", "bytes", "segments")?;
    }
    for partition in &found.partitions {
        let points = count(partition.points, "", "");
        let time = partition.range.map_or_else(|| "several partitions".to_owned(), range);
        writeln!(out, "{:>14}  {:>11}  {:>8}  {time}", points.trim_end(), bytes(partition.bytes), partition.segments)?;
    }
    if !found.segments.is_empty() {
        writeln!(
            out,
            "\nsegments\n{:>14}  {:>11}  {:>7}  {:>7}  {:>10}  {:<12}  from, to",
            "points", "bytes", "B/point", "series", "generation", "file"
        )?;
    }
    for segment in &found.segments {
        writeln!(
            out,
            "{:>14}  {:>11}  {:>7.2}  {:>7}  {:>10}  {:<12}  {}",
            count(segment.points, "", "").trim_end(),
            bytes(segment.bytes),
            bytes_per_point(segment.bytes, segment.points),
            segment.series,
            segment.generation,
            segment.file,
            range(segment.range)
        )?;
    }
    Ok(())
}

fn as_json(found: &Inspection) -> Value {
    let range = |range: TimeRange| json!({"start": range.start, "end": range.end});
    let file = |file: &FileSize| json!({"file": file.name, "bytes": file.bytes});
    let segments = found.segments.iter().map(|segment| {
        json!({
            "file": segment.file,
            "number": segment.number,
            "generation": segment.generation,
            "range": range(segment.range),
            "series": segment.series,
            "points": segment.points,
            "chunks": segment.chunks,
            "bytes": segment.bytes,
            "bytes_per_point": bytes_per_point(segment.bytes, segment.points),
        })
    });
    let partitions = found.partitions.iter().map(|partition| {
        json!({
            "range": partition.range.map(range),
            "segments": partition.segments,
            "points": partition.points,
            "bytes": partition.bytes,
        })
    });
    let largest = found.largest.iter().map(|size| {
        let tags: Vec<&str> = size.key.tags().collect();
        json!({"series": size.key.name(), "tags": tags, "points": size.points})
    });
    json!({
        "directory": found.dir.display().to_string(),
        "series": found.series,
        "points": found.points,
        "segment_bytes": found.segment_bytes(),
        "segments": segments.collect::<Vec<_>>(),
        "partition_micros": found.partition_micros,
        "partitions": partitions.collect::<Vec<_>>(),
        "largest": largest.collect::<Vec<_>>(),
        "log_files": found.log_files.iter().map(file).collect::<Vec<_>>(),
        "log_points": found.log_points,
        "series_bytes": found.series_bytes,
        "manifest_bytes": found.manifest_bytes,
        "given_up_before": found.given_up_before,
        "trimmed": found.trimmed.as_ref().map(ToString::to_string),
        "damage": found.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "quarantine": found.quarantine.iter().map(file).collect::<Vec<_>>(),
    })
}
