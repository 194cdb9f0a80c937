//! How long it takes from an event to what a workflow does about it, by the world's clock.

use std::time::Duration;

use slung_host::StartOptions;

use crate::fake::Fake;
use crate::fixture::{guest, options, start_in, text};

/// With everything that the guest asks for 100 µs pass. Its events wait since the query was made, which is the first of that.
#[test]
fn from_arrival_to_the_first_effect_or_the_next_poll() {
    let world = Fake::new();
    world.pass_with_each(100);
    world.preload(&["a", "b", "c", "d", "e"]);
    let body = format!(
        r#"{} {} {} {} {} (func (export "call") (result i32)
            (drop (call $query_live (i32.const 100)))
            ;; 100: the first of two effects counts, in 100.
            (drop (call $poll (i64.const 1)))
            (call $say (i64.const 1))
            (call $say (i64.const 2))
            ;; 300: none but a question, which is no effect: the next poll ends it, 300 after the arrival.
            (drop (call $poll (i64.const 1)))
            (drop (call $query_history (i32.const 100)))
            ;; 400: an effect that fails is none. The next one is an event, in 500.
            (drop (call $poll (i64.const 1)))
            (drop (call $ws (i64.const -1) (i32.const 16)))
            (drop (call $write_event (i32.const 200) (i32.const 230) (i32.const 260)))
            ;; 600: a request, in 600.
            (drop (call $poll (i64.const 1)))
            (drop (call $http (i32.const 300) (i32.const 16) (i32.const 0)))
            ;; Nothing comes of the last one.
            (drop (call $poll (i64.const 1)))
            (i32.const 0))"#,
        text(100, "temp:[]"),
        text(200, "5"),
        text(230, "1"),
        text(260, "series=x"),
        text(300, "http://x"),
    );
    let ended = start_in(&guest(&body), world, options(), StartOptions::default()).end();
    assert_eq!(ended.stats.events, 5);
    let (reactions, micros) = (&ended.stats.reactions, Duration::from_micros);
    assert_eq!((reactions.count(), reactions.total()), (4, micros(100 + 300 + 500 + 600)), "{reactions:?}");
    assert_eq!((reactions.below(micros(128)), reactions.below(micros(512))), (1, 3));
}

/// A clock that is set back makes it no time, and one that waits in a queue counts from when it arrived.
#[test]
fn no_event_no_reaction_and_a_clock_that_goes_back() {
    let world = Fake::new();
    world.pass_with_each(-100);
    world.preload(&["a"]);
    let body = format!(
        r#"{} (func (export "call") (result i32)
            (drop (call $query_live (i32.const 100)))
            (call $say (i64.const 1))
            (drop (call $poll (i64.const 7)))
            (drop (call $poll (i64.const 1)))
            (call $say (i64.const 2))
            (drop (call $poll (i64.const 1)))
            (i32.const 0))"#,
        text(100, "temp:[]"),
    );
    let ended = start_in(&guest(&body), world, options(), StartOptions::default()).end();
    let reactions = ended.stats.reactions;
    assert_eq!((reactions.count(), reactions.total()), (1, Duration::ZERO), "{reactions:?}");
}
