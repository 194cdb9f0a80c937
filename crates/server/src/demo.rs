//! `slung demo`: a server, a workflow and a producer, over real sockets, on a real machine's readings; judged at the end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use slung_model::SeriesKey;
use slung_net::client::{PlainProducer, PlainReceiver, PlainSender, Received};

use crate::cli::DemoArgs;
use crate::config::Config;
use crate::input::{self, InputEvent};
use crate::labels::{self, Judge};
use crate::query::ask;
use crate::serve::Running;
use crate::site::Counted;
use crate::workflow_config::WorkflowConfig;

const WORKFLOW: &str = "threshold-alert";
/// One hour of readings, every five minutes, smooths what a single one says.
const ALERT_QUERY: &str = "AVG:temperature:[machine=1]:[1h]";
const ALERT_BELOW: f64 = 55.0;
/// How long anything but the stream itself may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// After the last event: no alert for so long means that none is on the way.
const QUIET: Duration = Duration::from_millis(300);
/// How often the sender sends; each time as many events as the rate asks for.
const SEND_INTERVAL: Duration = Duration::from_millis(1);

#[derive(Deserialize)]
struct Alert {
    timestamp: i64,
    value: f64,
}

/// When each event was sent, by its own time.
type SentAt = Arc<Mutex<HashMap<i64, Instant>>>;

/// What came back.
#[derive(Default)]
struct Alerts {
    count: usize,
    latencies: Vec<Duration>,
    incidents: usize,
    windows_hit: (usize, usize),
}

/// Runs the demo. The exit code says whether every event is stored and three quarters of the failures were found.
pub(crate) async fn demo(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let name = args.data.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file =
        File::open(&args.data).with_context(|| format!("cannot read {}; name it with --data", args.data.display()))?;
    let readings: Vec<InputEvent> =
        input::events(BufReader::new(file))?.collect::<Result<_, _>>().context(name.clone())?;
    let windows = labels::windows_beside(&args.data)?;
    let (Some(first), Some(last)) = (readings.first(), readings.last()) else { bail!("{name} has no readings") };
    let (first, last) = (day(first.timestamp), day(last.timestamp));

    let folder = tempfile::Builder::new().prefix("slung-demo-").tempdir()?;
    let running = Running::start(config(args, &folder)?).await?;
    say(&format!(
        "data      {name}: {} readings, {first} to {last}, {} labelled failures\n\
         workflow  {WORKFLOW}: {ALERT_QUERY} below {ALERT_BELOW}\n\
         server    {}\n\n\
         alerts, as they come back to the producer (the first of each incident)",
        readings.len(),
        windows.len(),
        running.addr
    ));
    let judged = stream(args, &running, &readings, Judge::new(windows)).await;
    let outcome = match judged {
        Ok((alerts, took)) => summary(&running, &readings, alerts, took).await,
        Err(error) => Err(error),
    };
    running.stop().await?;
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn config(args: &DemoArgs, folder: &tempfile::TempDir) -> anyhow::Result<Config> {
    let file = args.workflows.join(format!("{WORKFLOW}.wasm"));
    ensure!(
        file.exists(),
        "{} is not there: build it with `cargo xtask build-workflows`, or say where it is with --workflows",
        file.display()
    );
    let env = BTreeMap::from([
        ("ALERT_QUERY".to_owned(), ALERT_QUERY.to_owned()),
        ("ALERT_BELOW".to_owned(), ALERT_BELOW.to_string()),
    ]);
    Ok(Config {
        listen: "127.0.0.1:0".parse()?,
        data: folder.path().join("data"),
        workflows: BTreeMap::from([(
            WORKFLOW.to_owned(),
            WorkflowConfig { file: Some(file), env, ..WorkflowConfig::default() },
        )]),
        ..Config::default()
    })
}

/// What came of the workflow's updates.
fn counted(running: &Running) -> Counted {
    let feed = running.workflows.get(WORKFLOW).and_then(|workflow| workflow.feed);
    feed.map_or_else(Counted::default, |feed| feed.counted())
}

/// Sends every reading, and takes the alerts until no more come.
async fn stream(
    args: &DemoArgs,
    running: &Running,
    readings: &[InputEvent],
    judge: Judge,
) -> anyhow::Result<(Alerts, Duration)> {
    until("the workflow has subscribed", || running.engine.stats().live.handles == 1).await?;
    let (sender, receiver) = PlainProducer::connect(&format!("ws://{}/", running.addr)).await?.split();
    let sent_at = SentAt::default();
    let (quiet, mut alerted) = tokio::sync::watch::channel(());
    let listener = tokio::spawn(listen(receiver, judge, Arc::clone(&sent_at), quiet));

    let started = Instant::now();
    let mut sender = send(sender, readings, args.rate, &sent_at).await?;
    let took = started.elapsed();
    until("the workflow has taken every update", || counted(running).waiting == 0).await?;
    while tokio::time::timeout(QUIET, alerted.changed()).await.is_ok() {}
    sender.close().await?;
    Ok((listener.await??, took))
}

async fn send(
    mut sender: PlainSender,
    readings: &[InputEvent],
    rate: u32,
    sent_at: &SentAt,
) -> anyhow::Result<PlainSender> {
    let key = SeriesKey::new("temperature", ["machine=1"])?;
    let started = Instant::now();
    let mut interval = tokio::time::interval(SEND_INTERVAL);
    let mut sent = 0;
    while sent < readings.len() {
        interval.tick().await;
        let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as usize;
        let now = Instant::now();
        for reading in &readings[sent..due.clamp(sent, readings.len())] {
            sent_at.lock().unwrap_or_else(PoisonError::into_inner).insert(reading.timestamp, now);
            sender.send(reading.timestamp, reading.value, &key).await?;
            sent += 1;
        }
        sender.flush().await?;
    }
    Ok(sender)
}

async fn listen(
    mut receiver: PlainReceiver,
    mut judge: Judge,
    sent_at: SentAt,
    alerted: tokio::sync::watch::Sender<()>,
) -> anyhow::Result<Alerts> {
    let mut alerts = Alerts::default();
    while let Some(message) = receiver.receive().await? {
        let now = Instant::now();
        let Received::Text(text) = &message else { bail!("no alert: {message:?}") };
        let alert: Alert = serde_json::from_str(text).with_context(|| format!("no alert: {text}"))?;
        let sent = sent_at.lock().unwrap_or_else(PoisonError::into_inner).get(&alert.timestamp).copied();
        alerts.latencies.extend(sent.map(|sent| now - sent));
        alerts.count += 1;
        let verdict = judge.alert(alert.timestamp);
        if verdict.new_incident {
            let place = match verdict.window {
                Some(index) => format!("in labelled failure {}", index + 1),
                None => "outside of the labelled failures".to_owned(),
            };
            say(&format!("  {}  {:.2}  {place}", minute(alert.timestamp), alert.value));
        }
        alerted.send_replace(());
    }
    alerts.incidents = judge.incidents();
    alerts.windows_hit = judge.windows_hit();
    Ok(alerts)
}

/// Prints it, and answers whether the demo went as it should.
async fn summary(
    running: &Running,
    readings: &[InputEvent],
    mut alerts: Alerts,
    took: Duration,
) -> anyhow::Result<bool> {
    let distinct = readings.iter().map(|reading| reading.timestamp).collect::<HashSet<_>>().len();
    let url = format!("http://{}", running.addr);
    let stored = ask(&url, "COUNT:temperature:[machine=1]").await?["value"].as_f64().unwrap_or_default();
    let merged = counted(running).merged;
    alerts.latencies.sort_unstable();
    let percentile = |percent: usize| match alerts.latencies.len() {
        0 => "none".to_owned(),
        count => format!("{:.2} ms", alerts.latencies[(count * percent / 100).min(count - 1)].as_secs_f64() * 1e3),
    };
    let (hit, windows) = alerts.windows_hit;
    let all_stored = stored == distinct as f64;
    say(&format!(
        "\n\
         events sent      {} in {:.2} s, {:.0} a second\n\
         events stored    {stored} points for {distinct} distinct timestamps{}\n\
         alerts           {} in {} incidents\n\
         failures found   {hit} of {windows}\n\
         event to alert   p50 {}, p99 {}\n\
         updates merged   {merged}",
        readings.len(),
        took.as_secs_f64(),
        readings.len() as f64 / took.as_secs_f64(),
        if all_stored { "" } else { ": SOME ARE MISSING" },
        alerts.count,
        alerts.incidents,
        percentile(50),
        percentile(99),
    ));
    Ok(all_stored && hit * 4 >= windows * 3)
}

async fn until(what: &str, mut wish: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !wish() {
        ensure!(Instant::now() < deadline, "gave up after {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(SEND_INTERVAL).await;
    }
    Ok(())
}

fn time(micros: i64, format: &str) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| micros.to_string(), |timestamp| timestamp.strftime(format).to_string())
}

fn day(micros: i64) -> String {
    time(micros, "%Y-%m-%d")
}

fn minute(micros: i64) -> String {
    time(micros, "%Y-%m-%d %H:%M")
}

#[expect(clippy::print_stdout, reason = "the demo shows its result there")]
fn say(text: &str) {
    println!("{text}");
}
