//! Workflows by name: what a change does, what it refuses, what is left of it after the process ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slung_host::{
    DeployChange, DeployError, DeployOptions, Deployment, Deployments, Feed, Host, HostOptions, RestartOptions, Site,
    StartOptions, State, World,
};

use crate::fake::{Asked, Fake, LONG};
use crate::fixture::{guest, options, text};

/// The world of each version that was started, by what came before.
#[derive(Default)]
struct Seen {
    feeds: Vec<Arc<Fake>>,
    /// Which of them the stream went to, and from which.
    switches: Vec<(Option<usize>, usize)>,
    /// What the next world has from the start, as if it had arrived after the switch.
    preload: Vec<&'static str>,
    /// What the next world answers to an HTTP request: never.
    hangs: bool,
}

#[derive(Clone, Default)]
struct Place(Arc<Mutex<Seen>>);

#[derive(Debug)]
struct End {
    number: usize,
    fake: Arc<Fake>,
}

impl Feed for End {
    fn world(&self) -> Arc<dyn World> {
        Arc::clone(&self.fake) as Arc<dyn World>
    }

    fn waiting(&self) -> usize {
        self.fake.open().into_iter().filter(|id| self.fake.has_waiting(*id)).count()
    }
}

impl Site for Place {
    type Feed = End;

    fn options(&self, name: &str, env: &BTreeMap<String, String>) -> Result<StartOptions, String> {
        if env.contains_key("SECRET") {
            return Err("the secret is not there".to_owned());
        }
        let env = env.clone().into_iter().collect();
        Ok(StartOptions { name: name.to_owned(), env, ..StartOptions::default() })
    }

    fn feed(&self, _: &str) -> End {
        let mut seen = self.0.lock().unwrap();
        let fake = Fake::new();
        fake.preload(&seen.preload);
        if seen.hangs {
            fake.respond(None);
        }
        seen.feeds.push(Arc::clone(&fake));
        End { number: seen.feeds.len() - 1, fake }
    }

    fn switch(&self, from: Option<&End>, to: &End) -> u64 {
        let mut seen = self.0.lock().unwrap();
        seen.switches.push((from.map(|from| from.number), to.number));
        100 + seen.switches.len() as u64
    }

    fn try_out(&self, _: &str, module: &[u8]) -> Result<(), String> {
        if module.starts_with(b"nasty") { Err("it would take an hour".to_owned()) } else { Ok(()) }
    }
}

impl Place {
    fn feed(&self, number: usize) -> Arc<Fake> {
        Arc::clone(&self.0.lock().unwrap().feeds[number])
    }

    fn switches(&self) -> Vec<(Option<usize>, usize)> {
        self.0.lock().unwrap().switches.clone()
    }
}

struct Setting {
    place: Place,
    deployments: Deployments<Place>,
    runtime: tokio::runtime::Runtime,
}

impl Setting {
    fn new(dir: &Path) -> Self {
        Self::with(dir, options(), DeployOptions::default())
    }

    fn with(dir: &Path, host: HostOptions, deploy: DeployOptions) -> Self {
        let place = Place::default();
        let host = Host::new(host).unwrap();
        let deployments = Deployments::open(host, place.clone(), dir.to_owned(), deploy).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        Self { place, deployments, runtime }
    }

    fn change(&self, change: DeployChange) -> Result<Deployment<End>, DeployError> {
        self.runtime.block_on(async {
            let changed = tokio::time::timeout(LONG, self.deployments.change("w", change)).await;
            changed.expect("it is done in time")
        })
    }

    fn deploy(&self, module: &[u8]) -> Result<Deployment<End>, DeployError> {
        self.change(deploy(module, &[]))
    }
}

fn deploy(module: &[u8], env: &[(&str, &str)]) -> DeployChange {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    DeployChange::Deploy { module: module.to_vec(), env }
}

/// Sends every event to producer 9, and says so many when it starts.
fn echo(number: u64) -> Vec<u8> {
    guest(&format!(
        r#"{} (func (export "call") (result i32) (local i32)
            (drop (call $query_live (i32.const 100)))
            (call $say (i64.const {number}))
            (loop $again
                (local.set 0 (call $poll (i64.const 1)))
                (if (local.get 0) (then (drop (call $ws (i64.const 9) (local.get 0)))))
                (br $again))
            (i32.const 0))"#,
        text(100, "temp:[]")
    ))
}

/// The events that were sent to producer 9.
fn echoed(fake: &Fake) -> Vec<String> {
    let sent = |asked: Asked| match asked {
        Asked::Ws(9, data) => Some(String::from_utf8(data).unwrap()),
        _ => None,
    };
    fake.asked().into_iter().filter_map(sent).collect()
}

const QUERY: u64 = 1_001;

#[test]
fn a_new_version_takes_over_when_the_one_before_has_taken_what_is_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    let first = setting.deploy(&echo(1)).unwrap();
    assert_eq!((first.version, first.state, first.sees_after), (Some(1), Some(State::Running), Some(101)));
    let one = setting.place.feed(0);
    one.push(QUERY, "a");
    one.wait_said(2);

    // Many wait for the one before, and one for the new one.
    for _ in 0..500 {
        one.push(QUERY, "b");
    }
    setting.place.0.lock().unwrap().preload = vec!["c"];
    let second = setting.deploy(&echo(2)).unwrap();
    assert_eq!((second.version, second.state, second.sees_after), (Some(2), Some(State::Running), Some(102)));
    assert_eq!(setting.place.switches(), [(None, 0), (Some(0), 1)]);
    assert_eq!(echoed(&one).len(), 501, "all that came up to the switch, and nothing is lost");
    assert!(one.open().is_empty(), "its queries have ended");
    let two = setting.place.feed(1);
    two.wait_said(2);
    assert_eq!(echoed(&two), ["c"]);
    assert!(second.stats.events >= 501, "counters go on: {}", second.stats.events);
    let numbers: Vec<u64> = second.versions.iter().map(|version| version.number).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(setting.deployments.list().len(), 1);
}

/// The one before is in the middle of something when the new one comes: that is waited for, though not for ever.
#[test]
fn a_version_that_does_not_come_back_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let drain_timeout = Duration::from_millis(50);
    let setting = Setting::with(folder.path(), options(), DeployOptions { drain_timeout, ..DeployOptions::default() });
    let hangs = guest(&format!(
        r#"{} {} (func (export "call") (result i32)
            (drop (call $query_live (i32.const 100)))
            (drop (call $poll (i64.const 1)))
            (call $say (i64.const 1))
            (drop (call $http (i32.const 200) (i32.const 16) (i32.const 0)))
            (i32.const 0))"#,
        text(100, "temp:[]"),
        text(200, "http://x/")
    ));
    setting.place.0.lock().unwrap().hangs = true;
    setting.deploy(&hangs).unwrap();
    setting.place.feed(0).wait_said(1);
    setting.place.feed(0).push(QUERY, "lost");
    let second = setting.deploy(&echo(2)).unwrap();
    assert_eq!((second.version, second.state), (Some(2), Some(State::Running)));
    assert!(setting.place.feed(0).open().is_empty());
    let log = second.log.lines(0, usize::MAX).lines;
    let lost = "was ended in its work after 0.05 s: 1 updates that waited for it are lost";
    assert!(log.iter().any(|line| line.text.contains(lost)), "{log:?}");
}

#[test]
fn what_fails_before_its_first_poll_leaves_all_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let first_poll_timeout = Duration::from_millis(100);
    let deploy_options = DeployOptions { first_poll_timeout, ..DeployOptions::default() };
    let setting = Setting::with(folder.path(), options(), deploy_options);
    let never_polls = guest(r#"(func (export "call") (result i32) (loop $again (br $again)) (i32.const 0))"#);
    let bad = [
        (guest(r#"(func (export "call") (result i32) (i32.const 1))"#), "before its first poll: it returned an error"),
        (
            guest(r#"(func (export "call") (result i32) unreachable)"#),
            "before its first poll: wasm trap: wasm `unreachable`",
        ),
        (never_polls, "did not call `u_poll_handle` within 0.1 s"),
        (b"nasty".to_vec(), "it would take an hour"),
        (b"\0asm".to_vec(), "module"),
    ];
    let refuse = |expected_versions: usize| {
        for (module, expected) in &bad {
            let error = setting.deploy(module).unwrap_err();
            let DeployError::Invalid(why) = &error else { panic!("{error:?}") };
            assert!(why.contains(expected), "{why}");
        }
        let error = setting.change(deploy(&echo(3), &[("SECRET", "")])).unwrap_err();
        assert_eq!(error, DeployError::Invalid("the secret is not there".to_owned()));
        let versions = setting.deployments.get("w").map_or(0, |workflow| workflow.versions.len());
        assert_eq!(versions, expected_versions);
    };
    refuse(0);
    assert!(setting.deployments.list().is_empty());
    setting.deploy(&echo(1)).unwrap();
    let running = setting.place.0.lock().unwrap().feeds.len() - 1;
    refuse(1);
    // It goes on.
    let fake = setting.place.feed(running);
    fake.push(QUERY, "still there");
    fake.wait_said(2);
    assert_eq!(echoed(&fake), ["still there"]);
    assert_eq!(setting.place.switches(), [(None, running)]);
}

/// A clean return is an end, also before the first poll.
#[test]
fn one_that_has_done_its_work_is_deployed() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    setting.deploy(&echo(1)).unwrap();
    let done = setting.deploy(&guest(r#"(func (export "call") (result i32) (i32.const 0))"#)).unwrap();
    assert_eq!((done.version, done.state), (Some(2), Some(State::Done)));
    assert!(setting.place.feed(0).open().is_empty(), "the one before has ended");
}

#[test]
fn one_that_is_starting_again_is_replaced_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let restarts = RestartOptions { pause_min: LONG, pause_max: LONG, ..RestartOptions::default() };
    let deploy_options = DeployOptions { restarts, drain_timeout: LONG, ..DeployOptions::default() };
    let setting = Setting::with(folder.path(), options(), deploy_options);
    let fails = guest(&format!(
        r#"{} (func (export "call") (result i32)
            (drop (call $query_live (i32.const 100))) (drop (call $poll (i64.const 1))) unreachable)"#,
        text(100, "temp:[]")
    ));
    setting.deploy(&fails).unwrap();
    setting.place.feed(0).wait_listening();
    setting.place.feed(0).push(QUERY, "a");
    let end = std::time::Instant::now() + LONG;
    while !matches!(setting.deployments.get("w").unwrap().state, Some(State::Restarting(_))) {
        assert!(std::time::Instant::now() < end, "it never failed");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(setting.deploy(&echo(2)).unwrap().state, Some(State::Running));
}

#[test]
fn rolled_back_stopped_started_and_removed_and_all_of_it_kept() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let setting = Setting::new(dir);
    let said = |setting: &Setting| setting.place.0.lock().unwrap().feeds.last().unwrap().said()[0];
    for number in 1..=12 {
        setting.change(deploy(&echo(number), &[("NUMBER", &number.to_string())])).unwrap();
    }
    let workflow = setting.deployments.get("w").unwrap();
    let numbers: Vec<u64> = workflow.versions.iter().map(|version| version.number).collect();
    assert_eq!(numbers, Vec::from_iter(3..=12), "the last ten");
    assert_eq!(setting.change(DeployChange::Rollback(None)).unwrap().version, Some(11));
    assert_eq!(setting.change(DeployChange::Rollback(Some(3))).unwrap().version, Some(3));
    assert_eq!(said(&setting), 3);
    let unknown = |change| match setting.change(change) {
        Err(DeployError::Unknown(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(unknown(DeployChange::Rollback(None)).contains("has no version before 3: it has 3, 4"));
    assert!(unknown(DeployChange::Rollback(Some(2))).contains("has no version 2"));
    let conflict = setting.change(DeployChange::Rollback(Some(3))).unwrap_err();
    assert!(matches!(conflict, DeployError::Conflict(_)), "{conflict:?}");
    let conflict = setting.change(DeployChange::Start).unwrap_err();
    assert!(conflict.to_string().contains("runs already"), "{conflict:?}");
    setting.deployments.close();

    // After a start the same version runs.
    let setting = Setting::new(dir);
    setting.deployments.start_all();
    setting.place.feed(0).wait_said(1);
    assert_eq!(said(&setting), 3);
    let stopped = setting.change(DeployChange::Stop).unwrap();
    assert_eq!((stopped.version, stopped.state), (Some(3), Some(State::Stopped)));
    assert!(setting.place.feed(0).open().is_empty());
    setting.change(DeployChange::Stop).unwrap();
    setting.deployments.close();

    let setting = Setting::new(dir);
    setting.deployments.start_all();
    assert_eq!(setting.deployments.get("w").unwrap().state, None, "it stays stopped");
    assert_eq!(setting.change(DeployChange::Start).unwrap().state, Some(State::Running));
    assert_eq!(setting.deploy(&echo(13)).unwrap().version, Some(13), "no number is used twice");
    // A damaged module is not run, and the others are.
    std::fs::write(dir.join("w/5.wasm"), echo(6)).unwrap();
    let damaged = setting.change(DeployChange::Rollback(Some(5))).unwrap_err();
    assert!(damaged.to_string().contains("5.wasm: damaged"), "{damaged}");
    assert_eq!(setting.change(DeployChange::Rollback(None)).unwrap().version, Some(12));
    setting.change(DeployChange::Remove).unwrap();
    assert!(setting.deployments.get("w").is_none() && !dir.join("w").exists());
    assert!(unknown_after(&setting).contains("there is no workflow w"));
    setting.deployments.close();
    assert!(Setting::new(dir).deployments.list().is_empty());
}

fn unknown_after(setting: &Setting) -> String {
    setting.change(DeployChange::Stop).unwrap_err().to_string()
}

#[test]
fn what_can_not_be_started_is_listed_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    setting.deploy(&echo(1)).unwrap();
    setting.deployments.close();
    let record = folder.path().join("w/deployment.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, &text[..text.len() / 2]).unwrap();

    let setting = Setting::new(folder.path());
    setting.deployments.start_all();
    let workflow = setting.deployments.get("w").unwrap();
    assert_eq!(workflow.state, None);
    assert!(workflow.trouble.unwrap().contains("deployment.json"));
    for change in [DeployChange::Start, DeployChange::Rollback(None), deploy(&echo(2), &[])] {
        let error = setting.change(change).unwrap_err();
        assert!(error.to_string().contains("bring the file back, or remove the workflow"), "{error}");
    }
    setting.change(DeployChange::Remove).unwrap();
    assert_eq!(setting.deploy(&echo(2)).unwrap().version, Some(1));
}

#[test]
fn a_configured_one_is_stopped_and_started_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new(options()).unwrap();
    let module = host.compile("w", &echo(7)).unwrap();
    let place = Place::default();
    let deployments =
        Deployments::open(host, place.clone(), folder.path().to_owned(), DeployOptions::default()).unwrap();
    deployments.configure("w", module, BTreeMap::new());
    deployments.start_all();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let setting = Setting { place, deployments, runtime };
    for change in [deploy(&echo(1), &[]), DeployChange::Rollback(None), DeployChange::Remove] {
        let error = setting.change(change).unwrap_err();
        assert!(error.to_string().contains("configured with a file"), "{error}");
    }
    assert_eq!(setting.change(DeployChange::Stop).unwrap().state, Some(State::Stopped));
    assert_eq!(setting.change(DeployChange::Start).unwrap().state, Some(State::Running));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is kept of it");
}

#[test]
fn one_change_at_a_time_and_each_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let first_poll_timeout = Duration::from_secs(2);
    let deploy_options = DeployOptions { first_poll_timeout, ..DeployOptions::default() };
    let setting = Setting::with(folder.path(), options(), deploy_options);
    setting.deploy(&echo(1)).unwrap();
    // It asks somebody before its first poll, who does not answer yet.
    let asks = guest(&format!(
        r#"{} {} (func (export "call") (result i32)
            (drop (call $query_live (i32.const 100)))
            (call $say (i64.const 2))
            (drop (call $http (i32.const 200) (i32.const 16) (i32.const 0)))
            (drop (call $poll (i64.const 1)))
            (i32.const 0))"#,
        text(100, "temp:[]"),
        text(200, "http://x/")
    ));
    setting.place.0.lock().unwrap().hangs = true;
    setting.runtime.block_on(async {
        let wait = tokio::time::timeout(Duration::from_millis(1), setting.deployments.change("w", deploy(&asks, &[])));
        assert!(wait.await.is_err(), "nobody waits for it any more");
    });
    let end = std::time::Instant::now() + LONG;
    while setting.place.0.lock().unwrap().feeds.len() < 2 {
        assert!(std::time::Instant::now() < end, "it went no further");
        std::thread::sleep(Duration::from_millis(1));
    }
    setting.place.feed(1).wait_said(1);
    assert_eq!(setting.change(DeployChange::Stop).unwrap_err(), DeployError::Busy("w".to_owned()));
    assert_eq!(setting.deployments.get("w").unwrap().version, Some(1));
    // It gives up after its time, as nobody answers; what was there goes on, and can be changed again.
    let until = std::time::Instant::now() + LONG;
    while setting.change(DeployChange::Stop).is_err() {
        assert!(std::time::Instant::now() < until, "it never ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(setting.place.switches(), [(None, 0)]);
}

#[test]
fn names_and_environments_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    let long = "x".repeat(65);
    for name in ["", ".", "..", ".hidden", "a/b", "a b", "ä", long.as_str()] {
        let error = setting.runtime.block_on(setting.deployments.change(name, deploy(&echo(1), &[]))).unwrap_err();
        assert!(matches!(&error, DeployError::Invalid(why) if why.contains("no workflow name")), "{error:?}");
    }
    let huge = "x".repeat(20_000);
    for (env, expected) in
        [(("A=B", "1"), "no `=`"), (("A", "a\0b"), "NUL"), (("", "1"), "no environment"), (("A", &*huge), "at most")]
    {
        let error = setting.change(deploy(&echo(1), &[env])).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
