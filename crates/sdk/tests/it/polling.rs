//! How updates come: for ever, one by one, by turns, and how it ends.

use std::cell::Cell;
use std::io::{Error, ErrorKind};
use std::time::Duration;

use slung::prelude::*;
use slung::testing::Host;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

#[test]
fn poll_handle_calls_back_with_every_update_and_the_arguments() {
    let host = Host::new();
    let sensor = host.producer();
    sensor.send("temp", &["sensor=1", "env=prod"], [(SECOND, 1.0), (2 * SECOND, 4.0)]);
    host.send("temp", &["sensor=2"], [(3 * SECOND, 100.0)]);
    host.send("temp", &["sensor=1"], [(4 * SECOND, 7.0)]);
    let mut seen = Vec::new();
    let end = host.within(|| {
        let handle = query_live("SUM:temp:[sensor=1]")?;
        let note = |event: Event, name: String| {
            seen.push((name, event.timestamp, event.value, event.tags, event.producers, event.count));
            Ok(())
        };
        poll_handle(handle, note, "a clone".to_owned())
    });
    assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    let name = || "a clone".to_owned();
    let tags = || vec!["env=prod".to_owned(), "sensor=1".to_owned()];
    assert_eq!(
        seen,
        [
            (name(), SECOND, 1.0, tags(), vec![sensor.id()], Some(1)),
            (name(), 2 * SECOND, 5.0, tags(), vec![sensor.id()], Some(2)),
            (name(), 4 * SECOND, 12.0, vec!["sensor=1".to_owned()], vec![], Some(3)),
        ]
    );
}

#[test]
fn poll_handle_ends_with_the_callbacks_error() {
    let host = Host::new();
    host.send("temp", &[], [(0, 1.0), (1, 2.0), (2, 3.0)]);
    let calls = Cell::new(0);
    let fail_at_two = |event: Event, ()| {
        calls.set(calls.get() + 1);
        if event.value == 2.0 { Err(Error::other("two is too much")) } else { Ok(()) }
    };
    let error = host.run(|| poll_handle(query_live("temp:[]")?, fail_at_two, ())).unwrap_err();
    assert_eq!((error.to_string().as_str(), calls.get()), ("two is too much", 2));
    host.run(|| poll_handle(query_live("temp:[]")?, fail_at_two, ())).unwrap();
    assert_eq!(calls.get(), 3, "what was left of the script arrives in the next run");
}

#[test]
fn the_state_is_there_for_averages_sums_and_counts() {
    for (op, value, state) in [
        ("AVG", 2.5, Some((5.0, 2))),
        ("SUM", 5.0, Some((5.0, 2))),
        ("COUNT", 2.0, Some((5.0, 2))),
        ("MIN", 1.0, None),
        ("MAX", 4.0, None),
        ("?", 4.0, None),
    ] {
        let host = Host::new();
        host.send("temp", &[], [(0, 1.0), (1, 4.0)]);
        let (sum, count) = state.unzip();
        host.run(|| {
            let handle = query_live(format!("{op}:temp:[]"))?;
            poll_handle_state(handle)?.unwrap();
            assert_eq!(poll_handle_state(handle)?, Some(PollState { value, sum, count }), "{op}");
            Ok::<(), Error>(())
        })
        .unwrap();
    }
}

#[test]
fn handles_taken_in_turn_are_not_held_up_by_an_empty_one() {
    let host = Host::new();
    host.send("busy", &[], [(1, 1.0), (2, 2.0), (3, 3.0)]);
    let mut polls = 0;
    let mut seen = Vec::new();
    host.run(|| {
        let handles = [query_live("idle:[]")?, query_live("busy:[]")?];
        loop {
            for handle in handles {
                polls += 1;
                seen.extend(poll_handle_once(handle)?.map(|event| event.value));
            }
        }
        #[expect(unreachable_code, reason = "says what the closure answers")]
        Ok::<(), Error>(())
    })
    .unwrap();
    assert_eq!(seen, [1.0, 2.0, 3.0]);
    assert_eq!(polls, 7, "each poll of the idle one let one event arrive, the last one met the end");
}

#[test]
fn a_poll_answers_nothing_where_time_passed_and_nothing_arrived() {
    let host = Host::new();
    host.pass(Duration::from_secs(90));
    host.send("temp", &[], [(100 * SECOND, 5.0)]);
    host.run(|| {
        let handle = query_live("temp:[]")?;
        assert_eq!(poll_handle_once(handle)?, None);
        assert_eq!(unix_micros(), 90 * SECOND);
        assert_eq!(poll_handle_once(handle)?.map(|event| event.value), Some(5.0));
        assert_eq!(unix_micros(), 100 * SECOND, "an event arrives when it says that it was");
        poll_handle_once(handle).map(|_| ())
    })
    .unwrap();
}

#[test]
fn a_window_that_time_empties_tells_it() {
    let host = Host::new();
    let sensor = host.producer();
    sensor.send("temp", &[], [(0, 1.0)]);
    host.pass(Duration::from_secs(2 * 3_600));
    host.run(|| {
        let handle = query_live("COUNT:temp:[]:[1h]")?;
        assert_eq!(
            poll_handle_once(handle)?.map(|event| (event.value, event.producers)),
            Some((1.0, vec![sensor.id()]))
        );
        assert_eq!(poll_handle_once(handle)?.map(|event| (event.value, event.producers)), Some((0.0, vec![])));
        Ok::<(), Error>(())
    })
    .unwrap();
}

#[test]
fn a_sliding_window_starts_from_what_is_stored() {
    let host = Host::new();
    host.store("temp", &["sensor=1"], [(0, 1_000.0), (2 * HOUR, 10.0)]);
    host.store("temp", &["sensor=2"], [(2 * HOUR + SECOND, 20.0)]);
    host.send("temp", &["sensor=3"], [(2 * HOUR + 2 * SECOND, 60.0)]);
    host.run(|| {
        let handle = query_live("AVG:temp:[]:[1h]")?;
        assert_eq!(poll_handle_once(handle)?.map(|event| event.value), Some(30.0));
        Ok::<(), Error>(())
    })
    .unwrap();
}

#[test]
fn an_absolute_window_starts_from_its_range_and_a_running_one_from_nothing() {
    let host = Host::new();
    host.store("temp", &[], [(0, 100.0), (10, 1.0), (20, 2.0)]);
    host.send("temp", &[], [(15, 3.0), (30, 4.0)]);
    host.run(|| {
        let (absolute, running) = (query_live("SUM:temp:[]:[10,20]")?, query_live("SUM:temp:[]")?);
        let next = |handle| poll_handle_once(handle).map(|event| event.map(|event| event.value));
        assert_eq!(next(absolute)?, Some(6.0));
        assert_eq!(next(running)?, Some(3.0));
        assert_eq!(next(running)?, Some(7.0));
        Ok::<(), Error>(())
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "goes on polling after the script has ended")]
fn a_workflow_that_swallows_the_end_is_stopped() {
    Host::new()
        .run(|| {
            let handle = query_live("temp:[]").unwrap();
            loop {
                let _ = poll_handle_once(handle);
            }
            #[expect(unreachable_code, reason = "says what the closure answers")]
            ()
        })
        .unwrap();
}

#[test]
fn the_end_is_recognised_behind_other_errors() {
    #[derive(Debug)]
    struct Context(Error);
    impl std::fmt::Display for Context {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("while polling")
        }
    }
    impl std::error::Error for Context {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let poll = || poll_handle_once(query_live("temp:[]")?).map(|_| ());
    Host::new().run(|| poll().map_err(Context)).unwrap();
    Host::new().run(|| poll().map_err(|error| Error::other(Context(error)))).unwrap();
    let unrelated = Error::new(ErrorKind::UnexpectedEof, "a file was short");
    assert!(Host::new().run(|| Err::<(), _>(unrelated)).is_err());
}

#[test]
fn an_unknown_handle_has_no_updates() {
    let host = Host::new();
    host.send("temp", &[], [(0, 1.0)]);
    host.run(|| {
        let handle = query_live("temp:[]")?;
        assert_eq!(poll_handle_once(0)?, None);
        assert_eq!(poll_handle_once(handle)?.map(|event| event.value), Some(1.0));
        poll_handle_once(handle + 1_000).map(|_| ())
    })
    .unwrap();
}
