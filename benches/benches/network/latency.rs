//! How long one event takes: to be acknowledged, beside the disk alone; to come back as an alert.

use std::fs::File;
use std::io::{Seek, Write};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use slung_benches::{START, workflow};

use crate::producer::{Load, Message, Producer, Shape, single};
use crate::server::Process;
use crate::{Result, Setting, percentile, tell};

/// From one event to the next.
const PACE: Duration = Duration::from_millis(1);

fn micros(time: Duration) -> String {
    format!("{} µs", time.as_micros())
}

/// What one bare write takes, as small as a page is: it and the sync behind it.
fn write(file: &mut File) -> Result<Duration> {
    let start = Instant::now();
    file.write_all(&[0x5a; 4096])?;
    file.sync_data()?;
    Ok(start.elapsed())
}

/// One event at a time, each sent when the one before is acknowledged; beside writes that make a file longer, and writes into
/// a file that has its length already, as the log's files do.
pub(crate) fn ack(setting: &Setting, times: usize) -> Result<()> {
    let data = setting.data()?;
    let server = Process::slung(&setting.server, &data.path().join("data"), &[])?;
    let mut longer = File::create(data.path().join("longer"))?;
    let mut written = File::create(data.path().join("written"))?;
    written.write_all(&vec![0; 4096 * times])?;
    written.sync_all()?;
    written.rewind()?;
    let Producer { mut outgoing, mut incoming } = Producer::connect(server.addr, Shape::Batch.protocol())?;
    let (mut acks, mut appends, mut overwrites) = (Vec::new(), Vec::new(), Vec::new());
    // In turns, so that all three meet the same machine.
    for number in 1..=i64::try_from(times)? {
        let event = single(Shape::Batch, START + number, 1.0, number.cast_unsigned());
        let start = Instant::now();
        outgoing.write_all(&event)?;
        while !matches!(incoming.next()?, Message::Ack { through } if through == number.cast_unsigned()) {}
        acks.push(start.elapsed());
        appends.push(write(&mut longer)?);
        overwrites.push(write(&mut written)?);
    }
    let told = |what: &str, all: &mut [Duration]| {
        let (median, p99) = (percentile(all, 50), percentile(all, 99));
        tell(what, format!("median {}, p99 {}", micros(median), micros(p99)));
        median
    };
    let median = told("slung.v1, one event at a time, until acknowledged", &mut acks);
    for (what, all) in [("appended", &mut appends), ("over what is there", &mut overwrites)] {
        let bare = told(&format!("  4 KiB {what}, and fdatasync"), all);
        tell("    the acknowledgement's median, of that", format!("{:.2}", median.as_secs_f64() / bare.as_secs_f64()));
    }
    Ok(())
}

/// 1,000 events a second through `threshold-alert`, each of which is answered; by themselves, and beside a producer that sends
/// as fast as it is read.
pub(crate) fn writeback(setting: &Setting, events: usize) -> Result<()> {
    for (what, flooded) in
        [("event to alert, 1,000 a second", false), ("  the same, beside a sender at full speed", true)]
    {
        let (mut all, mut medians) = (Vec::new(), Vec::new());
        for _ in 0..setting.runs {
            let mut latencies = alerts(setting, events, flooded)?;
            medians.push(percentile(&mut latencies, 50));
            all.append(&mut latencies);
        }
        let (median, p99) = (percentile(&mut all, 50), percentile(&mut all, 99));
        medians.sort_unstable();
        let (least, most) = (medians[0], medians[medians.len() - 1]);
        let by_run = format!("by run {} to {}", micros(least), micros(most));
        tell(what, format!("median {} ({by_run}), p99 {}", micros(median), micros(p99)));
        let (answered, sent) = (all.len(), events * setting.runs);
        tell("    answered by themselves, the others with a later one", format!("{answered} of {sent}"));
    }
    Ok(())
}

fn alerts(setting: &Setting, events: usize, flooded: bool) -> Result<Vec<Duration>> {
    let data = setting.data()?;
    let config = data.path().join("slung.toml");
    let file = workflow("threshold-alert")?;
    let text = format!(
        "[workflows.alert]\nfile = {file:?}\n[workflows.alert.env]\nALERT_QUERY = \"AVG:temp:[from=s-0]:[1h]\"\n\
         ALERT_BELOW = \"1000\"\n"
    );
    std::fs::write(&config, text)?;
    let config = config.to_str().ok_or("a path that is not UTF-8")?;
    let server = Process::slung(&setting.server, &data.path().join("data"), &["--config", config])?;
    server.wait_for_metric("slung_live_handles", 1.0)?;
    if flooded {
        let mut flood = Producer::connect(server.addr, Shape::Plain.protocol())?;
        let mut load = Load::new(Shape::Plain, 1);
        // Ends with the server.
        thread::spawn(move || while flood.outgoing.write_all(load.renew()).is_ok() {});
    }
    paced(&server, events)
}

fn paced(server: &Process, events: usize) -> Result<Vec<Duration>> {
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
