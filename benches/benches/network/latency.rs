//! How long one event takes: to be acknowledged, beside the disk alone; to come back as an alert.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use slung_benches::START;

use crate::producer::{Message, Producer, Shape, single};
use crate::server::{Process, workflow};
use crate::{Result, Setting, percentile, tell};

/// Acknowledgements and bare writes take turns, so many of each.
const TURN: usize = 20;
/// From one event to the next.
const PACE: Duration = Duration::from_millis(1);

/// One bare write, as small as the file system's own pages are.
fn append(file: &mut File) -> Result<Duration> {
    let start = Instant::now();
    file.write_all(&[0x5a; 4096])?;
    file.sync_data()?;
    Ok(start.elapsed())
}

fn open(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().create(true).append(true).open(path)?)
}

/// One event at a time, each sent when the one before is acknowledged.
pub(crate) fn ack(setting: &Setting, times: usize) -> Result<()> {
    let data = setting.data()?;
    let server = Process::slung(&setting.server, &data.path().join("data"), &[])?;
    let mut file = open(&data.path().join("bare"))?;
    let Producer { mut outgoing, mut incoming } = Producer::connect(server.addr, Shape::Batch.protocol())?;
    let (mut acks, mut bare) = (Vec::new(), Vec::new());
    let mut number = 0;
    while acks.len() < times {
        for _ in 0..TURN {
            number += 1;
            let event = single(Shape::Batch, START + number, 1.0, number.cast_unsigned());
            let start = Instant::now();
            outgoing.write_all(&event)?;
            while !matches!(incoming.next()?, Message::Ack { through } if through == number.cast_unsigned()) {}
            acks.push(start.elapsed());
        }
        for _ in 0..TURN {
            bare.push(append(&mut file)?);
        }
    }
    let figures = |all: &mut [Duration]| (percentile(all, 50), percentile(all, 99));
    let ((median, p99), (bare, bare_p99)) = (figures(&mut acks), figures(&mut bare));
    tell("slung.v1, one event at a time, until acknowledged", format!("median {median:.0?}, p99 {p99:.0?}"));
    tell("  a bare append of 4 KiB and fdatasync", format!("median {bare:.0?}, p99 {bare_p99:.0?}"));
    tell("  median, of the bare one's", format!("{:.2}", median.as_secs_f64() / bare.as_secs_f64()));
    Ok(())
}

/// 1,000 events a second through `threshold-alert`, each of which is answered.
pub(crate) fn writeback(setting: &Setting, events: usize) -> Result<()> {
    let mut all = Vec::new();
    let mut medians = Vec::new();
    for _ in 0..setting.runs {
        let mut latencies = alerts(setting, events)?;
        medians.push(percentile(&mut latencies, 50));
        all.append(&mut latencies);
    }
    let (sent, answered) = (events * setting.runs, all.len());
    let (median, p99) = (percentile(&mut all, 50), percentile(&mut all, 99));
    medians.sort_unstable();
    let (least, most) = (medians[0], medians[medians.len() - 1]);
    tell(
        "event to alert, 1,000 a second",
        format!("median {median:.0?} (by run {least:.0?} to {most:.0?}), p99 {p99:.0?}"),
    );
    tell("  answered one by one, the others by a later one", format!("{answered} of {sent}"));
    Ok(())
}

fn alerts(setting: &Setting, events: usize) -> Result<Vec<Duration>> {
    let data = setting.data()?;
    let config = data.path().join("slung.toml");
    let text = "[workflows.alert]\nfile = FILE\n[workflows.alert.env]\nALERT_QUERY = \"AVG:temp:[]:[1h]\"\nALERT_BELOW = \"1000\"\n";
    std::fs::write(&config, text.replace("FILE", &format!("{:?}", workflow("threshold-alert")?)))?;
    let config = config.to_str().ok_or("a path that is not UTF-8")?;
    let server = Process::slung(&setting.server, &data.path().join("data"), &["--config", config])?;
    server.wait_for_metric("slung_live_handles", 1.0)?;
    let Producer { mut outgoing, mut incoming } = Producer::connect(server.addr, Shape::Plain.protocol())?;
    let first = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    let last = first + i64::try_from(events)? - 1;
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        loop {
            let message = incoming.next()?;
            let now = Instant::now();
            let Message::Text(text) = message else { return Err(format!("{message:?} is no alert").into()) };
            let alert: serde_json::Value = serde_json::from_slice(&text)?;
            let timestamp = alert["timestamp"].as_i64().ok_or("an alert has the time of its event")?;
            received.push((timestamp, now));
            if timestamp == last {
                return Ok::<_, crate::Error>(received);
            }
        }
    });
    let mut sent = Vec::with_capacity(events);
    let start = Instant::now();
    for (number, timestamp) in (0..).zip(first..=last) {
        thread::sleep((start + PACE * number).saturating_duration_since(Instant::now()));
        let event = single(Shape::Plain, timestamp, 1.0, timestamp.cast_unsigned());
        sent.push(Instant::now());
        outgoing.write_all(&event)?;
    }
    let received = reader.join().expect("it does not panic")?;
    let latency = |(timestamp, at): (i64, Instant)| Ok(at - sent[usize::try_from(timestamp - first)?]);
    received.into_iter().map(latency).collect()
}
