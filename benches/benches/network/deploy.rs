//! What it takes to deploy: to the first event that is answered, and what the stream feels of it; and what many workflows cost
//! that wait.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use slung_benches::{START, size, workflow};

use crate::producer::{Message, Producer, Shape, single};
use crate::server::Process;
use crate::{Result, Setting, mib, percentile, tell};

const PATIENCE: Duration = Duration::from_secs(60);

/// Deploys `threshold-alert`, which then answers every event of the series that is sent here.
fn put(server: &Process, name: &str, module: &[u8], below: u64) -> Result<()> {
    let query = "temp%3A%5Bfrom%3Ds-0%5D";
    let mut stream = TcpStream::connect(server.addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "PUT /api/v1/workflows/{name}?env=ALERT_QUERY%3D{query}&env=ALERT_BELOW%3D{below} HTTP/1.1\r\nHost: x\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        module.len()
    );
    stream.write_all(&[head.as_bytes(), module].concat())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 201") { Ok(()) } else { Err(answer.into()) }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// From the first byte of the request to the answer to an event that is sent when it is done, for a module that was never seen and
/// for one that was.
pub(crate) fn first_event(setting: &Setting, times: usize) -> Result<()> {
    let module = std::fs::read(workflow("threshold-alert")?)?;
    let (mut fresh, mut cached) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let data = setting.data()?;
        let server = Process::slung(&setting.server, &data.path().join("data"), &[])?;
        let Producer { mut outgoing, mut incoming } = Producer::connect(server.addr, Shape::Plain.protocol())?;
        for (number, all) in [(1, &mut fresh), (2, &mut cached)] {
            let begin = Instant::now();
            put(&server, "alert", &module, 1_000 + number)?;
            outgoing.write_all(&single(Shape::Plain, START + number.cast_signed(), 1.0, number))?;
            while !matches!(incoming.next()?, Message::Text(_)) {}
            all.push(begin.elapsed());
        }
    }
    for (what, all) in
        [("deploy to the first answer, module never seen", &mut fresh), ("  the same, compiled before", &mut cached)]
    {
        let (median, most) = (percentile(all, 50), percentile(all, 100));
        tell(what, format!("median {}, at most {}", millis(median), millis(most)));
    }
    Ok(())
}

/// 1,000 events a second, each answered, while the workflow is replaced again and again.
pub(crate) fn replaced(setting: &Setting, events: u64) -> Result<()> {
    let module = std::fs::read(workflow("threshold-alert")?)?;
    let data = setting.data()?;
    let server = Process::slung(&setting.server, &data.path().join("data"), &[])?;
    put(&server, "alert", &module, 1_000)?;
    for (what, replaces) in
        [("event to alert, 1,000 a second", false), ("  the same, while it is replaced all the time", true)]
    {
        let Producer { mut outgoing, mut incoming } = Producer::connect(server.addr, Shape::Plain.protocol())?;
        let (mut latencies, deploys) = thread::scope(|scope| -> Result<_> {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let deploying = scope.spawn(|| -> Result<u64> {
                let stopped = stopped;
                let mut deploys = 0;
                while replaces && matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                    deploys += 1;
                    put(&server, "alert", &module, 1_000 + deploys)?;
                }
                Ok(deploys)
            });
            let mut latencies = Vec::new();
            let mut next = Instant::now();
            for number in 1..=events {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                next = Instant::now().max(next) + Duration::from_millis(1);
                let begin = Instant::now();
                outgoing.write_all(&single(Shape::Plain, START + number.cast_signed(), 1.0, number))?;
                while !matches!(incoming.next()?, Message::Text(_)) {}
                latencies.push(begin.elapsed());
            }
            drop(stop);
            Ok((latencies, deploying.join().map_err(|_| "the thread that deploys has panicked")??))
        })?;
        let [median, p99, most] = [50, 99, 100].map(|percent| percentile(&mut latencies, percent));
        let deploys = if replaces { format!(", {deploys} versions") } else { String::new() };
        tell(what, format!("median {} µs, p99 {}, at most {}{deploys}", median.as_micros(), millis(p99), millis(most)));
    }
    Ok(())
}

/// So many workflows, each with a live query, while nothing happens.
pub(crate) fn parked(setting: &Setting, count: usize) -> Result<()> {
    let data = setting.data()?;
    let config = data.path().join("slung.toml");
    let file = workflow("threshold-alert")?;
    let mut text = String::new();
    for number in 0..count {
        text += &format!(
            "[workflows.parked-{number}]\nfile = {file:?}\nenv = {{ ALERT_QUERY = \"AVG:temp:[n={number}]:[5m]\" }}\n"
        );
    }
    std::fs::write(&config, text)?;
    let config = config.to_str().ok_or("a path that is not UTF-8")?;
    let watched = Duration::from_millis(size(20_000, 10) as u64);
    let mut told = Vec::new();
    for arguments in [&[][..], &["--config", config]] {
        let server = Process::slung(&setting.server, &data.path().join("data"), arguments)?;
        server.wait_for_metric("slung_live_handles", if arguments.is_empty() { 0.0 } else { count as f64 })?;
        // Until what they did at their start is over.
        thread::sleep(watched / 10);
        let (before, begin) = (server.cpu()?, Instant::now());
        thread::sleep(watched);
        let share = (server.cpu()? - before).as_secs_f64() / begin.elapsed().as_secs_f64();
        told.push((server.proportional_memory()?, share));
        server.kill()?;
    }
    let [(bare, bare_share), (all, share)] = told[..] else { return Err("there are two".into()) };
    tell("a server without workflows", format!("{}, {:.2} % of a core", mib(bare), 100.0 * bare_share));
    let more = mib(all.saturating_sub(bare));
    tell(
        &format!("  {count} workflows that wait, above that"),
        format!("{more}, {:.2} % of a core", 100.0 * (share - bare_share)),
    );
    Ok(())
}
