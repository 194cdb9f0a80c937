//! An in-memory host for native tests: the same workflow source, run by plain `cargo test`.
//!
//! A test says what is stored, what will arrive and what HTTP requests are answered, runs the workflow, and looks at what
//! it did. Queries are parsed and aggregated by the same code as in the server. Nothing is shared between hosts, so that
//! tests run in parallel, and nothing waits: time is the test's.
//!
//! ```
//! use slung::prelude::*;
//! use slung::testing::Host;
//!
//! fn workflow() -> Result<()> {
//!     let handle = query_live(query!("AVG:temp:[sensor=1]"))?;
//!     let warn = |event: Event, limit: f64| match event.producers.first() {
//!         Some(&producer) if event.value > limit => writeback_ws(producer, format!("{} is too hot", event.value)),
//!         _ => Ok(()),
//!     };
//!     poll_handle(handle, warn, 30.0)
//! }
//!
//! let host = Host::new();
//! let sensor = host.producer();
//! sensor.send("temp", &["sensor=1"], [(1_000_000, 20.0), (2_000_000, 50.0)]);
//! host.run(workflow)?;
//! assert_eq!(sensor.received(), ["35 is too hot"]);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # How time passes
//! The clock starts at [`Host::at`] (0 for [`Host::new`]) and never runs by itself. An event moves it on to its own
//! timestamp when it arrives, if that is later; [`Host::pass`] lets time pass in which nothing arrives.
//!
//! # How a workflow ends
//! A poll with nothing to tell lets the script go on: the next events arrive, and so on. Where the script has nothing
//! left, a poll fails with an error that [`Host::run`] takes for the normal end. A workflow that passes errors on with
//! `?`, as it should, needs nothing for it.
//!
//! # What is different from a server
//! Nothing is lost or merged for lack of room unless a queue of 1,024 updates runs full, all producers take everything at
//! once, and [`Host::pass`] leaps: a window that would tell several times in between tells once.

pub(crate) mod current;
mod world;

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slung_model::{ProducerId, SeriesKey};

use self::world::{EndOfScript, Step, World};
use crate::entry::Outcome;
use crate::{Result, WritebackMethod};

/// A message that a workflow sent to a producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whom it went to.
    pub producer: u64,
    /// What it was.
    pub data: Vec<u8>,
}

/// An HTTP request that a workflow made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: WritebackMethod,
    /// Where it went.
    pub url: String,
    /// What was sent.
    pub body: Vec<u8>,
}

/// An event that a workflow wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Microseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its value.
    pub value: f64,
    /// The name of its series.
    pub series: String,
    /// Its tags, sorted.
    pub tags: Vec<String>,
}

/// A host in memory. See the [module](self) for an example.
pub struct Host {
    world: Rc<RefCell<World>>,
}

/// A connection by which events come, and messages go back. It is made by [`Host::producer`].
pub struct Producer {
    id: ProducerId,
    world: Rc<RefCell<World>>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// An empty one, with the clock at 0.
    pub fn new() -> Self {
        Self::at(0)
    }

    /// An empty one, with the clock at that many microseconds since the Unix epoch.
    pub fn at(now: i64) -> Self {
        Self { world: Rc::new(RefCell::new(World::new(now))) }
    }

    /// Stores points `(timestamp, value)` of one series at once: what is there before the workflow starts. Timestamps are
    /// microseconds since the Unix epoch.
    ///
    /// # Panics
    /// If a name, tag or point is none that a server takes.
    pub fn store(&self, series: &str, tags: &[&str], points: impl IntoIterator<Item = (i64, f64)>) {
        let key = key(series, tags);
        for (timestamp, value) in points {
            self.world.borrow_mut().arrives(None, &key, timestamp, value);
        }
    }

    /// Lets events `(timestamp, value)` of one series arrive while the workflow polls, one after the other, after what was
    /// scripted before. They come from no producer, as by HTTP; see [`Producer::send`].
    ///
    /// # Panics
    /// If a name or tag is none that a server takes, and during the run if a point is none.
    pub fn send(&self, series: &str, tags: &[&str], points: impl IntoIterator<Item = (i64, f64)>) {
        send(&self.world, None, series, tags, points);
    }

    /// Connects a producer.
    pub fn producer(&self) -> Producer {
        Producer { id: self.world.borrow_mut().connect(), world: Rc::clone(&self.world) }
    }

    /// Lets time pass in which nothing arrives, after what was scripted before: the clock moves on, windows leave points
    /// behind, and the poll that slept through it answers, mostly with nothing.
    pub fn pass(&self, time: Duration) {
        self.world.borrow_mut().script.push_back(Step::Passes(time));
    }

    /// Answers one HTTP request with that body, the first one first. Where there is none left, or an empty one, the
    /// workflow gets no body, as it does when a request fails.
    pub fn respond(&self, body: impl Into<Vec<u8>>) {
        self.world.borrow_mut().responses.push_back(body.into());
    }

    /// Runs a workflow, which may be `main` itself, until it returns or the script ends. Its handles end with it; what is
    /// stored stays for the next run.
    ///
    /// # Errors
    /// What the workflow returned, but for the end of the script.
    ///
    /// # Panics
    /// If the workflow does, or if it goes on polling for ever after the end of the script.
    pub fn run<O: Outcome>(&self, workflow: impl FnOnce() -> O) -> Result<()> {
        let _ending = Ending(&self.world);
        match self.within(|| workflow().into_result()) {
            Err(error) if is_end(&*error) => Ok(()),
            Err(error) => Err(match error.downcast::<io::Error>() {
                Ok(error) => *error,
                Err(error) => io::Error::other(error.to_string()),
            }),
            Ok(()) => Ok(()),
        }
    }

    /// Calls a function of a workflow under this host, and answers what it answers.
    pub fn within<T>(&self, call: impl FnOnce() -> T) -> T {
        current::within(&self.world, call)
    }

    /// Everything that was sent to producers, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.world.borrow().messages.clone()
    }

    /// The HTTP requests that were made, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.world.borrow().requests.clone()
    }

    /// The events that were written, in order.
    pub fn written(&self) -> Vec<Written> {
        self.world.borrow().written.clone()
    }

    /// Why calls failed, in order: the reasons that a server would have put into the workflow's log.
    pub fn log(&self) -> Vec<String> {
        self.world.borrow().log.clone()
    }

    /// What is stored, asked by a query; `None` where there is nothing to tell.
    ///
    /// # Panics
    /// If it is no query.
    pub fn query(&self, query: &str) -> Option<f64> {
        self.world.borrow().query_history(query).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// The clock, microseconds since the Unix epoch.
    pub fn now(&self) -> i64 {
        self.world.borrow().now()
    }
}

impl Producer {
    /// The number that events carry in `producers`.
    pub fn id(&self) -> u64 {
        self.id.get()
    }

    /// Lets events `(timestamp, value)` of one series arrive from this producer while the workflow polls, one after the
    /// other, after what was scripted before. Timestamps are microseconds since the Unix epoch.
    ///
    /// # Panics
    /// If a name or tag is none that a server takes, and during the run if a point is none.
    pub fn send(&self, series: &str, tags: &[&str], points: impl IntoIterator<Item = (i64, f64)>) {
        send(&self.world, Some(self.id), series, tags, points);
    }

    /// Lets the connection close, after what was scripted before: from then on nothing can be sent to it.
    pub fn disconnect(&self) {
        self.world.borrow_mut().script.push_back(Step::Disconnects(self.id));
    }

    /// What workflows have sent to this producer, in order, as text.
    ///
    /// # Panics
    /// If one is not UTF-8: see [`Host::messages`].
    pub fn received(&self) -> Vec<String> {
        let world = self.world.borrow();
        let own = world.messages.iter().filter(|message| message.producer == self.id());
        own.map(|message| String::from_utf8(message.data.clone()).expect("a message that is text")).collect()
    }
}

fn key(series: &str, tags: &[&str]) -> Arc<SeriesKey> {
    match SeriesKey::new(series, tags) {
        Ok(key) => Arc::new(key),
        Err(reason) => panic!("the script is wrong: {reason}"),
    }
}

fn send(
    world: &RefCell<World>,
    producer: Option<ProducerId>,
    series: &str,
    tags: &[&str],
    points: impl IntoIterator<Item = (i64, f64)>,
) {
    let key = key(series, tags);
    let arrive = |(timestamp, value)| Step::Arrives { producer, key: Arc::clone(&key), timestamp, value };
    world.borrow_mut().script.extend(points.into_iter().map(arrive));
}

/// Ends the workflow in its world, also where it panics.
struct Ending<'a>(&'a RefCell<World>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().workflow_ended();
    }
}

/// Whether the end of the script is this error, or what caused it.
fn is_end(error: &(dyn Error + 'static)) -> bool {
    let boxed = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    boxed.is_some_and(|inner| is_end(inner)) || error.is::<EndOfScript>() || error.source().is_some_and(is_end)
}
