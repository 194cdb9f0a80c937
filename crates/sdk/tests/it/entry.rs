//! `#[main]` and `query!` as they are written in a workflow.

use slung::testing::Host;

mod with_a_result {
    use slung::prelude::*;

    #[main]
    pub(crate) fn main() -> Result<()> {
        let handle = query_live(query!("AVG:temp:[sensor=1]:[5m]"))?;
        poll_handle(handle, |event, ()| writeback_ws(event.producers[0], event.value.to_string()), ())
    }
}

mod without_one {
    #[slung::main]
    pub(crate) fn main() {
        slung::write_event(0, 1.0, ["series=started"]).expect("a host that takes events");
    }
}

mod with_any_error {
    #[slung::main]
    pub(crate) fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
        Err("not today".into())
    }
}

#[test]
fn main_is_an_ordinary_function() {
    let host = Host::new();
    let sensor = host.producer();
    sensor.send("temp", &["sensor=1"], [(0, 1.0), (60_000_000, 2.0)]);
    host.run(with_a_result::main).unwrap();
    assert_eq!(sensor.received(), ["1", "1.5"]);

    host.run(without_one::main).unwrap();
    assert_eq!(host.query("COUNT:started:[]"), Some(1.0));

    assert_eq!(host.run(with_any_error::main).unwrap_err().to_string(), "not today");
}

#[test]
fn query_is_a_constant() {
    const QUERY: &str = slung::query!("SUM:\"job:http\":[\"a b\" OR NOT x]:[1h]");
    assert_eq!(QUERY, "SUM:\"job:http\":[\"a b\" OR NOT x]:[1h]");
}
