//! The commands around a data directory, beside a server and without one, as an operator would use them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::server::{Server, http, run, slung};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command, and answers its exit code with all that it said.
fn said(args: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = run(slung().args(args));
    (status.code().expect("no signal"), text(&stdout) + &text(&stderr))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A server whose points go to segments soon.
fn start(folder: &Path) -> (Server, PathBuf) {
    let config = folder.join("slung.toml");
    std::fs::write(&config, "[store]\nmemtable = \"1MiB\"\nlog_file = \"1MiB\"\n").unwrap();
    let data = folder.join("data");
    (Server::start(&data, &["--config", path(&config)]), data)
}

/// Imports points into a directory that no server uses: `count` of the series `s` with the tag `a=1`, a second apart.
fn import(folder: &Path, data: &Path, count: u64) {
    let mut csv = "timestamp,value,series,tags\n".to_owned();
    for index in 0..count {
        writeln!(csv, "{},{},s,\"[\"\"a=1\"\"]\"", 1_700_000_000_000_000 + index * 1_000_000, index % 977).unwrap();
    }
    let file = folder.join("points.csv");
    std::fs::write(&file, csv).unwrap();
    let (code, said) = said(&["import", path(data), path(&file)]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("points imported"), "{said}");
}

/// A directory with points in a segment, without a server.
fn with_segment(folder: &Path) -> (PathBuf, PathBuf) {
    import(folder, &folder.join("data"), 60_000);
    // More than the server's memory for points takes.
    let (server, data) = start(folder);
    server.wait_until("points are in a segment", |server| server.metric("slung_store_segments") >= 1.0);
    assert!(server.terminate().success());
    let names = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let segment = names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("seg-")).min().unwrap();
    (data, segment)
}

#[test]
fn a_backup_under_load_has_every_event_that_was_stored_when_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let (server, data) = start(folder.path());
    let (child, feeder) = server.write_without_end();
    server.wait_until("some are flushed", |server| server.metric("slung_store_flushes_total") >= 2.0);
    let stored = server.query("COUNT:s:[]").as_f64().unwrap();
    // By then they are on disk.
    std::thread::sleep(std::time::Duration::from_secs(1));

    let (backup, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    let (code, first) = said(&["backup", path(&data), path(&backup)]);
    assert_eq!(code, 0, "{first}");
    assert!(first.contains("hard links") && first.contains("backup: whole: "), "{first}");
    let (code, again) = said(&["backup", path(&data), path(&backup)]);
    assert!(code == 1 && again.contains("not empty"), "{again}");
    // Beside the server, which goes on.
    for command in ["verify", "inspect"] {
        let (code, said) = said(&[command, path(&data)]);
        assert_eq!(code, 0, "{said}");
    }
    server.kill();
    child.wait_with_output().unwrap();
    feeder.join().unwrap();

    std::fs::remove_dir_all(&data).unwrap();
    let (code, said) = said(&["restore", path(&backup), path(&restored)]);
    assert!(code == 0 && said.contains("restored: whole: ") && !said.contains("hard links"), "{said}");
    let server = Server::start(&restored, &[]);
    let count = server.query("COUNT:s:[]").as_f64().unwrap();
    assert!(count >= stored && stored > 0.0, "{count} of {stored}");
    let newest = server.query("MAX:s:[]:[1700000000000000,1700000000000099]");
    assert_eq!(newest, 99.0, "the first hundred are there");
    assert!(server.terminate().success());
}

#[test]
fn what_is_deleted_was_shown_and_confirmed_and_stays_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    import(folder.path(), &data, 50_000);
    let (server, _) = start(folder.path());
    server.wait_until("points are in a segment", |server| server.metric("slung_store_segments") >= 1.0);
    let url = server.http_url();
    let delete = |query: &str, more: &[&str]| said(&[&["delete", query, "--url", &url], more].concat());

    let (code, refused) = delete("s:[]", &[]);
    assert_eq!(code, 1);
    assert!(refused.contains("50,000 points of 1 series, all of time") && refused.contains("--yes"), "{refused}");
    assert_eq!(server.query("COUNT:s:[]"), 50_000.0);
    let (code, refused) = delete("AVG:s:[]", &["--yes"]);
    assert!(code == 1 && refused.contains("AVG computes") && refused.contains("s:[]"), "{refused}");
    let (code, refused) = delete("s:x", &["--yes"]);
    assert!(code == 1 && refused.contains("byte"), "{refused}");
    let (code, nothing) = delete("other:[]", &["--yes"]);
    assert!(
        code == 0 && nothing.contains("0 points of 0 series") && nothing.contains("nothing to delete"),
        "{nothing}"
    );

    let range = "s:[a=1]:[1700000000000000,1700000009000000]";
    let (code, deleted) = delete(range, &["--yes"]);
    assert!(code == 0 && deleted.starts_with("10 points deleted; "), "{deleted}");
    assert_eq!(server.query("COUNT:s:[]"), 49_990.0);

    let request = |method: &str, query: &str, more: &str| {
        let path = format!("/api/v1/delete?q={query}");
        http(server.addr(), format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n"))
    };
    assert_eq!(request("GET", "s:[]", "").0, 405);
    assert_eq!(request("POST", "s:[]", "Origin: http://x\r\n").0, 403);
    let (status, body) = request("POST", "COUNT:s:[]", "");
    assert!(status == 400 && body.contains("\"at\":0"), "{body}");
    assert_eq!(server.query("COUNT:s:[]"), 49_990.0);
    let (status, body) = request("POST", "s:[]:[1700000010000000,1700000010000000]", "");
    assert!(status == 200 && body.starts_with("{\"points\":1,\"segments\":"), "{body}");
    assert!(server.terminate().success());

    let server = Server::start(&data, &[]);
    assert_eq!(server.query("COUNT:s:[]"), 49_989.0);
}

#[test]
fn what_is_exported_can_be_imported_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (server, data) = start(folder.path());
    let lines = [
        r#"{"timestamp":-5,"value":-0.0,"series":" a,\"b\"","tags":["x=\"1,2\"","é ü","[]"]}"#,
        r#"{"timestamp":1700000000000001,"value":5e-324,"series":"temp","tags":[]}"#,
        r#"{"timestamp":1700000000000002,"value":1.7976931348623157e308,"series":"temp","tags":[]}"#,
        r#"{"timestamp":1700000000000003,"value":0.1,"series":"temp","tags":["sensor=1"]}"#,
        r#"{"timestamp":1700000000000004,"value":21,"series":"\n","tags":["sensor=1"]}"#,
    ];
    let file = folder.path().join("lines.json");
    std::fs::write(&file, lines[..4].join("\n")).unwrap();
    let (code, sent) = said(&["write", path(&file), "--wait", "0", "--url", &server.ws_url()]);
    assert_eq!(code, 0, "{sent}");
    server.wait_until("all is stored", |server| server.metric("slung_store_points") == 4.0);

    // While the server runs. A quoted name starts with the blank that it has.
    let everything = r#"temp," a,\"b\"":[]"#;
    let expected = "timestamp,value,series,tags\n\
        -5,-0.0,\" a,\"\"b\"\"\",\"[\"\"[]\"\",\"\"x=\\\"\"1,2\\\"\"\"\",\"\"é ü\"\"]\"\n\
        1700000000000001,5e-324,temp,[]\n\
        1700000000000002,1.7976931348623157e308,temp,[]\n\
        1700000000000003,0.1,temp,\"[\"\"sensor=1\"\"]\"\n\
        4 points exported\n";
    // What is stored and not yet on disk no other process can see.
    let mut exported = (1, String::new());
    server.wait_until("all is on disk", |_| {
        exported = said(&["export", path(&data), everything]);
        exported.1.ends_with("4 points exported\n")
    });
    assert_eq!((exported.0, exported.1.as_str()), (0, expected));
    let (code, one) = said(&["export", path(&data), "temp:[]:[1700000000000002,1700000000000002]"]);
    assert!(code == 0 && one.contains("\n1 point exported"), "{one}");
    let (code, refused) = said(&["export", path(&data), "AVG:temp:[]"]);
    assert!(code == 1 && refused.contains("AVG computes"), "{refused}");

    let csv = folder.path().join("out.csv");
    let (code, exported) = said(&["export", path(&data), everything, "--out", path(&csv)]);
    assert_eq!((code, exported.as_str()), (0, "4 points exported\n"));
    let (code, refused) = said(&["import", path(&data), path(&csv)]);
    assert!(code == 1 && refused.contains("in use by another store"), "{refused}");
    let copy = folder.path().join("copy");
    let (code, imported) = said(&["import", path(&copy), path(&csv)]);
    assert!(code == 0 && imported.starts_with("4 points imported into "), "{imported}");
    let (code, again) = said(&["export", path(&copy), everything]);
    assert_eq!((code, again.as_str()), (0, expected));
    drop(server);
}

#[test]
fn an_import_stops_at_the_line_that_is_wrong_and_says_what_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("nab.csv");
    let import = |csv: &str| {
        std::fs::write(&file, csv).unwrap();
        said(&["import", path(&data), path(&file), "--series", "temp", "--tag", "machine=1"])
    };
    let exported = || said(&["export", path(&data), "temp:[machine=1]"]).1;
    let (code, said_first) = import("timestamp,value\n2013-12-02 21:15:00,73.9\n2013-12-02 21:20:00,74.9\n");
    assert_eq!(code, 0, "{said_first}");
    assert!(exported().contains("1386018900000000,73.9,temp,\"[\"\"machine=1\"\"]\"\n"), "{}", exported());
    for (csv, place, stored) in [
        ("timestamp,value\n5,1\n6,2\n7,x\n8,4\n", "line 4: \"x\" is no finite number", "2 points before it"),
        ("timestamp,value\n5,1\n99999999999999999,2\n", "line 3: timestamp", "1 point before it"),
        ("timestamp,value,tags\n5,1,\"[\"\"a\\u0000b\"\"]\"\n", "line 2: control character", "0 points before it"),
        ("timestamp,wert\n5,1\n", "line 1: the header has no column `value`", ""),
    ] {
        let (code, said) = import(csv);
        assert!(code == 1 && said.contains(place) && said.contains(stored), "{csv:?}: {said}");
    }
    assert!(exported().contains("4 points exported"), "{}", exported());
    let (code, missing) = said(&["import", path(&data), "no-such-file.csv"]);
    assert!(code == 1 && missing.contains("cannot read no-such-file.csv"), "{missing}");
}

#[test]
fn damage_is_named_kept_aside_and_told_with_every_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (data, segment) = with_segment(folder.path());
    let (code, whole) = said(&["verify", path(&data)]);
    assert!(code == 0 && whole.contains(": whole: 60,000 points"), "{whole}");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 4;
    std::fs::write(&segment, &bytes).unwrap();

    let name = segment.file_name().unwrap().to_str().unwrap();
    let (code, damaged) = said(&["verify", path(&data)]);
    assert_eq!(code, 1);
    for part in [name, "damaged at byte", "s{a=1}", "1 damage; all else is whole"] {
        assert!(damaged.contains(part), "{part} is missing in {damaged}");
    }
    let (code, exported) = said(&["export", path(&data), "s:[]", "--out", path(&folder.path().join("part.csv"))]);
    assert!(code == 1 && exported.contains("a part only"), "{exported}");
    let (code, backed_up) = said(&["backup", path(&data), path(&folder.path().join("backup"))]);
    assert!(code == 1 && backed_up.contains("1 damage"), "{backed_up}");

    // One that can't even be opened is kept aside by the server.
    bytes.truncate(middle);
    std::fs::write(&segment, &bytes).unwrap();
    let (server, _) = start(folder.path());
    let line = server.wait_for_log("may be missing");
    assert!(line.contains("WARN") && line.contains("quarantine"), "{line}");
    server.wait_for_log("restore a backup");
    let (status, body) = server.get("/api/v1/query?q=COUNT:s:[]");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert!(status == 200 && answer["partial"] == true, "{body}");
    assert!(answer["damage"][0].as_str().unwrap().contains(name), "{body}");
    let (_, body) = server.get("/api/v1/query?q=COUNT:s:[]:[1,2]");
    assert!(!body.contains("partial"), "{body}");
    assert!(server.metric("slung_store_damaged") >= 1.0);
    // A live query starts from what is left.
    let _apart = server.watch("COUNT:s:[]:[1,2]");
    assert_eq!(server.metric("slung_live_windows_partial"), 0.0);
    let _live = server.watch("COUNT:s:[]:[0,9007199254740991]");
    assert_eq!((server.metric("slung_live_windows"), server.metric("slung_live_windows_partial")), (2.0, 1.0));
    let output = run(slung().args(["query", "COUNT:s:[]", "--url", &server.http_url()]));
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).trim().parse::<f64>().unwrap() < 60_000.0);
    assert!(text(&output.stderr).contains("a partial one") && text(&output.stderr).contains(name));

    let (code, inspected) = said(&["inspect", path(&data)]);
    assert!(code == 1 && inspected.contains(&format!("quarantine  {name}")), "{inspected}");
    let output = run(slung().args(["inspect", "--json"]).arg(&data));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["quarantine"][0]["file"], name);
    assert_eq!(json["damage"].as_array().unwrap().len(), 1);
}

#[test]
fn inspect_shows_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let (data, segment) = with_segment(folder.path());
    let (code, shown) = said(&["inspect", path(&data)]);
    assert_eq!(code, 0, "{shown}");
    let name = segment.file_name().unwrap().to_str().unwrap();
    for part in ["60,000 points in 1 series", "bytes a point", name, "s{a=1}", "2023-11-14T22:13:20Z"] {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }
    let output = run(slung().args(["inspect", "--json"]).arg(&data));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["points"].as_u64(), json["series"].as_u64()), (Some(60_000), Some(1)));
    assert_eq!(json["largest"][0]["tags"][0], "a=1");
    let segments = json["segments"].as_array().unwrap();
    let in_segments: u64 = segments.iter().map(|segment| segment["points"].as_u64().unwrap()).sum();
    assert_eq!(in_segments + json["log_points"].as_u64().unwrap(), 60_000);
}

#[test]
fn what_is_no_data_directory_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("nothing");
    let notes = folder.path().join("notes");
    std::fs::create_dir(&notes).unwrap();
    std::fs::write(notes.join("mine"), "x").unwrap();
    for dir in [&nothing, &notes] {
        let to = folder.path().join("to");
        for args in [
            &["inspect", path(dir)][..],
            &["verify", path(dir)],
            &["backup", path(dir), path(&to)],
            &["restore", path(dir), path(&to)],
            &["export", path(dir), "a:[]"],
        ] {
            let (code, said) = said(args);
            assert!(code == 1 && said.contains(path(dir)), "{args:?}: {said}");
            assert!(!to.exists() && !nothing.exists(), "{args:?} makes nothing");
        }
    }
}

#[test]
fn a_wrong_setting_is_named_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("slung.toml");
    std::fs::write(&config, "[store]\nretention = \"90 dogs\"\n").unwrap();
    let (code, said) = said(&["serve", "--config", path(&config)]);
    assert!(code == 1 && said.contains("store.retention = \"90 dogs\""), "{said}");
}
