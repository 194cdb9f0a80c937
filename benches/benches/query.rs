//! The query language: how fast a text is read, and the series that it means are found.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use slung_benches::size;
use slung_model::{Catalogue, QUERY_BYTES_MAX, QUERY_NESTING_MAX, QUERY_SERIES_MAX, QUERY_TAGS_MAX, Query, SeriesKey};

const TYPICAL: &str = "AVG:cpu.total:[env=prod AND service=db]:[5m]";

/// As many series and tags, as deep and as long, as the language allows.
fn maximal() -> String {
    let parts = QUERY_SERIES_MAX + QUERY_TAGS_MAX;
    let words = (QUERY_BYTES_MAX - "AVG::[]:[5m]".len() - 2 * QUERY_NESTING_MAX - parts * " AND ".len()) / parts;
    let series: Vec<String> = (0..QUERY_SERIES_MAX).map(|i| format!("{i:s<words$}")).collect();
    let tag = |i: usize| format!("{i:t<words$}");
    let mut tags = String::new();
    for i in 0..QUERY_TAGS_MAX {
        let open = if i < QUERY_NESTING_MAX { "(" } else { "" };
        let connector = ["AND", "OR"][i % 2];
        tags += &format!("{open}{} {connector} ", tag(i));
    }
    let tags = tags.trim_end_matches(" OR ").to_owned() + &")".repeat(QUERY_NESTING_MAX);
    let text = format!("AVG:{}:[{tags}]:[5m]", series.join(","));
    format!("{text:QUERY_BYTES_MAX$}")
}

fn parse(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let maximal = maximal();
    let mut group = criterion.benchmark_group("parse");
    for (name, text) in [("typical", TYPICAL), ("maximal", &maximal)] {
        Query::parse(text)?;
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| Query::parse(black_box(text))));
    }
    group.finish();
    Ok(())
}

/// 100,000 series of one name. Ten regions and ten services, all pairs of them, and hosts with 100 series each.
fn catalogue() -> Result<Catalogue, Box<dyn Error>> {
    let mut catalogue = Catalogue::default();
    for i in 0..size(100_000, 1_000) {
        let tags =
            [format!("region=r-{}", i % 10), format!("service=s-{}", i / 10 % 10), format!("host=h-{}", i / 100)];
        catalogue.insert(&SeriesKey::new("cpu.total", tags)?)?;
    }
    Ok(catalogue)
}

fn select(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let catalogue = catalogue()?;
    let all = catalogue.select(&Query::parse("?:cpu.total:[]")?);
    let mut group = criterion.benchmark_group("select_100k");
    let wide = "AVG:cpu.total:[region=r-3 AND service=s-7]";
    let narrow = "AVG:cpu.total:[region=r-3 AND host=h-7]";
    for (name, text, share) in [("two_wide_tags", wide, 100), ("wide_and_narrow_tag", narrow, all.len() / 10)] {
        let query = Query::parse(text)?;
        assert_eq!(catalogue.select(&query).len(), all.len() / share);
        group.bench_function(name, |bencher| bencher.iter(|| catalogue.select(black_box(&query))));
    }
    // What there would be without an index.
    let query = Query::parse(wide)?;
    let matches = |id: &_| catalogue.key(*id).is_some_and(|key| query.matches(key));
    group.bench_function("scan", |bencher| bencher.iter(|| all.iter().filter(|id| matches(id)).count()));
    group.finish();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // Half of criterion's own 8 seconds each: on a shared machine several short runs tell more than a long one.
    let criterion = Criterion::default().without_plots().warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.measurement_time(Duration::from_secs(3)).configure_from_args();
    parse(&mut criterion)?;
    select(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
