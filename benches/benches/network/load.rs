//! How much the server takes: events per second, memory of those who only stay connected, and what is left of both where ten
//! senders give all they have.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use slung_benches::cost::thread_cpu;

use crate::producer::{Load, Message, PATIENCE, Producer, Shape, count_of};
use crate::server::Process;
use crate::{Result, Setting, median, mib, tell};

/// How frames come to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Thousands of them in one write.
    Coalesced,
    /// Each by itself.
    OneFrame,
}

/// What a run took.
#[derive(Clone, Copy)]
struct Run {
    events: usize,
    wall: Duration,
    server: Duration,
    loader: Duration,
}

impl Run {
    fn rate(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64() / 1e6
    }

    fn nanos(&self, time: Duration) -> f64 {
        time.as_nanos() as f64 / self.events as f64
    }
}

fn tell_runs(what: &str, runs: &[Run]) {
    let rates = || runs.iter().map(Run::rate);
    let (least, most) = (rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max));
    let server = median(runs.iter().map(|run| run.nanos(run.server)));
    let loader = median(runs.iter().map(|run| run.nanos(run.loader)));
    let rate = median(rates());
    tell(
        what,
        format!(
            "{rate:.2} M events/s ({least:.2} to {most:.2}); processor time {server:.0} ns an event, loader {loader:.0} ns"
        ),
    );
}

fn plain_run(process: &Process, writes: Writes, events: usize) -> Result<Run> {
    let mut load = Load::new(Shape::Plain, 0);
    let rounds = events.div_ceil(load.events());
    let mut producer = Producer::connect(process.addr, Shape::Plain.protocol())?;
    let (start, server, loader) = (Instant::now(), process.cpu()?, thread_cpu()?);
    for _ in 0..rounds {
        let bytes = load.renew();
        match writes {
            Writes::Coalesced => producer.outgoing.write_all(bytes)?,
            Writes::OneFrame => load.each().try_for_each(|frame| producer.outgoing.write_all(frame))?,
        }
    }
    producer.finish()?;
    let (wall, server, loader) = (start.elapsed(), process.cpu()? - server, thread_cpu()? - loader);
    Ok(Run { events: rounds * load.events(), wall, server, loader })
}

/// The plain protocol: one event a frame, stored, beside a server that throws all of them away.
pub(crate) fn plain(setting: &Setting, writes: Writes, events: usize) -> Result<()> {
    let (mut ours, mut sinks) = (Vec::new(), Vec::new());
    for _ in 0..setting.runs {
        let data = setting.data()?;
        let server = Process::slung(&setting.server, data.path(), &[])?;
        let run = plain_run(&server, writes, events)?;
        let stored = server.count(&count_of(0))?;
        assert_eq!(stored, run.events as u64, "all of them are stored, each once");
        ours.push(run);
        drop(server);
        sinks.push(plain_run(&Process::sink()?, writes, events)?);
    }
    let how = if writes == Writes::Coalesced { "coalesced" } else { "one write a frame" };
    tell_runs(&format!("plain protocol, {how}, stored"), &ours);
    tell_runs("  a bare WebSocket sink", &sinks);
    let ratio = median(std::iter::zip(&ours, &sinks).map(|(ours, sink)| ours.rate() / sink.rate()));
    tell("  stored, of the sink's rate in the same run", format!("{ratio:.2}"));
    Ok(())
}

/// `slung.v1`: a thousand events in each frame, until the last one is acknowledged.
pub(crate) fn acknowledged(setting: &Setting, shape: Shape, events: usize) -> Result<()> {
    let mut runs = Vec::new();
    for _ in 0..setting.runs {
        let data = setting.data()?;
        let server = Process::slung(&setting.server, data.path(), &[])?;
        let mut load = Load::new(shape, 0);
        let rounds = events.div_ceil(load.events());
        let Producer { mut outgoing, mut incoming } = Producer::connect(server.addr, shape.protocol())?;
        let (start, cpu, loader) = (Instant::now(), server.cpu()?, thread_cpu()?);
        let last = (rounds * load.frames()) as u64;
        let reader = thread::spawn(move || {
            loop {
                match incoming.next()? {
                    Message::Ack { through } if through >= last => return Ok::<_, crate::Error>(Instant::now()),
                    _ => {}
                }
            }
        });
        (0..rounds).try_for_each(|_| outgoing.write_all(load.renew()))?;
        let loader = thread_cpu()? - loader;
        let acknowledged = reader.join().expect("it does not panic")?;
        let run =
            Run { events: rounds * load.events(), wall: acknowledged - start, server: server.cpu()? - cpu, loader };
        assert_eq!(server.count(&count_of(0))?, run.events as u64, "all of them are stored, each once");
        runs.push(run);
    }
    let what = if shape == Shape::Batch { "batches of 1,000 events" } else { "blocks of 1,000 points" };
    tell_runs(&format!("slung.v1, {what}, acknowledged"), &runs);
    Ok(())
}

/// Producers that have said something once and then only stay.
pub(crate) fn idle(setting: &Setting, count: usize) -> Result<()> {
    let data = setting.data()?;
    let server = Process::slung(&setting.server, data.path(), &[])?;
    let (before, _) = server.memory()?;
    let event = crate::producer::single(Shape::Plain, slung_benches::START, 1.0, 0x0102_0304);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut producers = Vec::with_capacity(count);
    for index in 0..count {
        // 200 from each address: a server may limit how many there are from one.
        let [high, low] = u16::try_from(index / 200)?.to_be_bytes();
        let from = [127, 1, high, low + 1];
        let mut producer = runtime.block_on(Producer::connect_from(from, server.addr, Shape::Plain.protocol()))?;
        producer.outgoing.write_all(&event)?;
        producers.push(producer);
    }
    producers.iter_mut().try_for_each(Producer::finish)?;
    // What only making so many of them took is given back, if anything is.
    thread::sleep(Duration::from_secs(1));
    let (now, peak) = server.memory()?;
    // There may be no room for one more connection, that asks, before one has gone.
    producers.truncate(count - 1);
    thread::sleep(Duration::from_millis(200));
    server.wait_for_metric("slung_producers", (count - 1) as f64)?;
    tell(
        &format!("{count} idle connections"),
        format!("{} in all, {} before, peak {}", mib(now), mib(before), mib(peak)),
    );
    tell("  each", format!("{} bytes", now.saturating_sub(before) / count as u64));
    Ok(())
}

struct Flood {
    acknowledged: u64,
    memory: u64,
}

/// So many senders give all they have for a while; then the server is killed, and asked what it has.
fn flood(setting: &Setting, senders: usize, time: Duration) -> Result<Flood> {
    let data = setting.data()?;
    let server = Process::slung(&setting.server, data.path(), &[])?;
    let sent: Vec<AtomicU64> = (0..senders).map(|_| AtomicU64::new(0)).collect();
    let acknowledged: Vec<AtomicU64> = (0..senders).map(|_| AtomicU64::new(0)).collect();
    let told = || acknowledged.iter().map(|frames| frames.load(Relaxed) * crate::producer::BATCH as u64);
    let producers = (0..senders).map(|_| Producer::connect(server.addr, Shape::Batch.protocol()));
    let producers: Vec<Producer> = producers.collect::<Result<_>>()?;
    let (goodput, memory) = thread::scope(|scope| {
        for (sender, Producer { mut outgoing, mut incoming }) in producers.into_iter().enumerate() {
            let (sent, acknowledged) = (&sent[sender], &acknowledged[sender]);
            // Both end with the server.
            scope.spawn(move || {
                let mut load = Load::new(Shape::Batch, sender);
                loop {
                    sent.fetch_add(load.events() as u64, Relaxed);
                    if outgoing.write_all(load.renew()).is_err() {
                        return;
                    }
                }
            });
            scope.spawn(move || {
                while let Ok(message) = incoming.next() {
                    if let Message::Ack { through } = message {
                        acknowledged.store(through, Relaxed);
                    }
                }
            });
        }
        thread::sleep(time);
        let goodput = told().sum();
        let patient = Instant::now() + PATIENCE;
        while told().any(|events| events == 0) && Instant::now() < patient {
            thread::sleep(Duration::from_millis(10));
        }
        let memory = server.memory().map(|(_, peak)| peak);
        server.kill()?;
        Ok::<_, crate::Error>((goodput, memory?))
    })?;
    let server = Process::slung(&setting.server, data.path(), &[])?;
    for (sender, told) in told().enumerate() {
        let (stored, sent) = (server.count(&count_of(sender))?, sent[sender].load(Relaxed));
        assert!(stored >= told, "{told} events of sender {sender} were acknowledged, and {stored} are there");
        assert!(stored <= sent, "{sent} events of sender {sender} were sent, and {stored} are there");
        assert!(told > 0, "sender {sender} was served, too");
    }
    Ok(Flood { acknowledged: goodput, memory })
}

/// Ten senders at full speed, beside one and two.
pub(crate) fn overload(setting: &Setting, time: Duration) -> Result<()> {
    let (mut best, mut ten) = (Vec::new(), Vec::new());
    for _ in 0..setting.runs {
        let fewer = [flood(setting, 1, time)?, flood(setting, 2, time)?];
        best.push(fewer.iter().map(|flood| flood.acknowledged).max().expect("there are two"));
        ten.push(flood(setting, 10, time)?);
    }
    let rate = |events: u64| format!("{:.2} M events/s", events as f64 / time.as_secs_f64() / 1e6);
    tell("one or two senders, whichever is better, acknowledged", rate(median(best.iter().copied())));
    tell("ten senders, acknowledged", rate(median(ten.iter().map(|flood| flood.acknowledged))));
    let ratios = std::iter::zip(&best, &ten).map(|(best, ten)| ten.acknowledged as f64 / *best as f64);
    tell("  of the best in the same run", format!("{:.2}", median(ratios)));
    tell("  peak of the server's memory", mib(ten.iter().map(|flood| flood.memory).max().unwrap_or_default()));
    tell("  acknowledged events that are missing after kill -9", 0);
    Ok(())
}
