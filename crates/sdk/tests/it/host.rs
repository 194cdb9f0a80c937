//! The in-memory host itself: scripts, runs, and that hosts don't meet.

use std::io::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use slung::prelude::*;
use slung::testing::Host;

fn count() -> Result<()> {
    poll_handle(query_live("COUNT:temp:[]")?, |event, ()| write_event(event.timestamp, event.value, ["series=n"]), ())
}

#[test]
fn handles_end_with_the_workflow_and_what_is_stored_stays() {
    let host = Host::new();
    host.send("temp", &[], [(1, 1.0), (2, 1.0)]);
    host.run(count).unwrap();
    assert_eq!(host.query("MAX:n:[]"), Some(2.0));
    host.send("temp", &[], [(3, 1.0)]);
    host.run(count).unwrap();
    assert_eq!(host.query("n:[]"), Some(1.0), "a running aggregate starts again, and only one workflow wrote");
    assert_eq!(host.written().len(), 3);
    assert_eq!(host.query("COUNT:temp:[]"), Some(3.0));
}

#[test]
fn a_producer_that_is_gone_gets_nothing() {
    let host = Host::new();
    let (gone, there) = (host.producer(), host.producer());
    gone.send("temp", &[], [(1, 1.0)]);
    there.send("temp", &[], [(2, 2.0)]);
    gone.disconnect();
    there.send("temp", &[], [(3, 3.0)]);
    host.run(|| {
        let tell_all = |event: Event, ()| {
            for id in [gone.id(), there.id()] {
                let _ = writeback_ws(id, event.value.to_string());
            }
            Ok(())
        };
        poll_handle(query_live("temp:[]")?, tell_all, ())
    })
    .unwrap();
    assert_eq!(gone.received(), ["1", "2"]);
    assert_eq!(there.received(), ["1", "2", "3"]);
    assert_eq!(host.log().len(), 1, "{:?}", host.log());
}

#[test]
fn a_workflow_that_panics_leaves_no_host_behind() {
    let host = Host::new();
    host.send("temp", &[], [(1, 1.0)]);
    let panics = || poll_handle(query_live("temp:[]")?, |_, ()| panic!("oh"), ());
    assert!(catch_unwind(AssertUnwindSafe(|| host.run(panics))).is_err());
    assert!(query_live("temp:[]").is_err(), "there is no host here any more");
    host.send("temp", &[], [(2, 1.0)]);
    host.run(count).unwrap();
    assert_eq!(host.query("n:[]"), Some(1.0));
}

#[test]
fn hosts_of_one_thread_and_of_many_do_not_meet() {
    let one = |value: f64| {
        let host = Host::new();
        let sensor = host.producer();
        sensor.send("temp", &[], (0..500).map(|at| (at, value)));
        let other = Host::new();
        host.run(|| {
            other.within(|| write_event(0, -1.0, ["series=temp"]))?;
            poll_handle(query_live("SUM:temp:[]")?, |event, ()| writeback_ws(1, event.value.to_string()), ())
        })
        .unwrap();
        assert_eq!(other.query("temp:[]"), Some(-1.0));
        sensor.received().pop()
    };
    std::thread::scope(|scope| {
        let threads = [1.0, 2.0, 3.0, 4.0].map(|value| (value, scope.spawn(move || one(value))));
        for (value, thread) in threads {
            assert_eq!(thread.join().unwrap(), Some((500.0 * value).to_string()));
        }
    });
}

#[test]
fn the_clock_only_goes_forward() {
    let host = Host::at(100);
    host.store("temp", &[], [(50, 1.0)]);
    assert_eq!(host.now(), 100);
    host.store("temp", &[], [(150, 1.0), (120, 1.0)]);
    assert_eq!(host.now(), 150);
}

#[test]
fn a_workflow_may_end_without_the_script() {
    let host = Host::new();
    host.send("temp", &[], [(1, 1.0)]);
    host.run(|| ()).unwrap();
    assert_eq!(host.run(|| Err::<(), _>(Error::other("no"))).unwrap_err().to_string(), "no");
    assert_eq!(host.query("COUNT:temp:[]"), Some(0.0), "nothing has polled, so nothing has arrived");
}

#[test]
fn a_wrong_script_is_told_at_once() {
    for (wrong, what) in [
        (Box::new(|host: &Host| host.store("", &[], [(0, 1.0)])) as Box<dyn Fn(&Host)>, "name is empty"),
        (Box::new(|host: &Host| host.send("temp", &["\n"], [])), "control character"),
        (Box::new(|host: &Host| host.store("temp", &[], [(0, f64::NAN)])), "not finite"),
        (Box::new(|host: &Host| host.store("temp", &[], [(i64::MAX, 1.0)])), "outside of"),
        (Box::new(|host: &Host| assert_eq!(host.query("temp"), None)), "query `temp`"),
        (
            Box::new(|host: &Host| {
                let producer = host.producer();
                producer.disconnect();
                producer.send("temp", &[], [(0, 1.0)]);
                host.run(count).unwrap();
            }),
            "has disconnected",
        ),
    ] {
        let panic = catch_unwind(AssertUnwindSafe(|| wrong(&Host::new()))).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains(what), "{text}");
    }
}
