//! Producers in other languages: the recipes of the book, taken from their pages and run, and libraries that others wrote
//! against the plain protocol. They need python3, node and npm, and install packages below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::server::{Server, slung, workflow};

const PYTHON: &str = include_str!("../../../../docs/producers/python.md");
const TYPESCRIPT: &str = include_str!("../../../../docs/producers/typescript.md");

/// As installed; newer ones may change.
const WEBSOCKETS: &str = "websockets==16.0";
const NPM: [&str; 3] = ["ws@8.21.0", "typescript@5.9.3", "@types/node@22"];

/// Makes `ws` stand for the WebSocket that Node.js has from version 22 on.
const WS_MJS: &str = "import WebSocket from \"ws\";\nglobalThis.WebSocket ??= WebSocket;\n";

const START: u64 = 1_700_000_000_000_000;
const EVENTS: u64 = 100_000;

/// Sends [`EVENTS`] events, two of which are from the year 2255, and then others until a workflow has answered. Prints how
/// many were refused with which code, and the answer.
const PYTHON_DRIVER: &str = r#"
import asyncio, sys
from slung_producer import Producer

async def main(url):
    refused, messages = [], []
    async with Producer(url, messages.append, lambda event, code, why: refused.append(code)) as producer:
        for index in range(100_000):
            timestamp = 9_000_000_000_000_000 if index in (500, 70_000) else 1_700_000_000_000_000 + index
            await producer.send(timestamp, index % 1009, "s", ["a=é"])
            if index % 1_000 == 0:
                await asyncio.sleep(0.02)
        await producer.flush()
        while not messages:
            await producer.send(1_700_000_000_000_000, 5, "cold")
            await asyncio.sleep(0.1)
    print("refused", refused, "answer", messages[0])

asyncio.run(main(sys.argv[1]))
"#;

const TYPESCRIPT_DRIVER: &str = r#"
import { Producer } from "./slung-producer.js";

const refused: number[] = [];
const messages: (string | Uint8Array)[] = [];
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const producer = new Producer(process.argv[2]);
producer.onMessage = (message) => messages.push(message);
producer.onRefused = (_event, code) => refused.push(code);
for (let index = 0; index < 100_000; index++) {
  const timestamp = index === 500 || index === 70_000 ? 9_000_000_000_000_000 : 1_700_000_000_000_000 + index;
  await producer.send(timestamp, index % 1009, "s", ["a=é"]);
  if (index % 1_000 === 0) await sleep(20);
}
await producer.flush();
while (messages.length === 0) {
  await producer.send(1_700_000_000_000_000, 5, "cold");
  await sleep(100);
}
await producer.close();
console.log("refused", JSON.stringify(refused).replaceAll(",", ", "), "answer", messages[0]);
"#;

/// What RFC 6455 has and our own clients never do, with the plain protocol.
const PYTHON_PLAIN: &str = r#"
import asyncio, struct, sys
from websockets.asyncio.client import connect

def event(timestamp, value):
    return struct.pack("<qdHH", timestamp, value, 5, 1) + b"plain" + struct.pack("<H", 3) + b"a=1"

async def main(url):
    async with connect(url, compression="deflate") as socket:
        assert socket.protocol.extensions == [], "compression is declined"
        assert socket.subprotocol is None
        whole = event(1, 1.0)
        async def fragments(parts):
            for part in parts:
                yield part
                await (await socket.ping(b"in between"))
        await socket.send(fragments([whole[:1], whole[1:30], b"", whole[30:]]))
        text = '{"timestamp":2,"value":2,"series":"plain","tags":["a=1"]}'
        await socket.send(fragments([text[:10], text[10:]]))
        for index in range(3, 5_001):
            await socket.send(event(index, float(index)))
        await (await socket.ping())
        await socket.close(4321, "done")
        assert (socket.close_code, socket.close_reason) == (4321, "done"), socket.close_code
    async with connect(url, subprotocols=["unknown", "slung.plain"]) as socket:
        assert socket.subprotocol == "slung.plain"

asyncio.run(main(sys.argv[1]))
"#;

const NODE_PLAIN: &str = r#"
import assert from "node:assert";
import { once } from "node:events";
import WebSocket from "ws";

const event = (timestamp, value) => {
  const bytes = Buffer.alloc(30);
  bytes.writeBigInt64LE(BigInt(timestamp), 0);
  bytes.writeDoubleLE(value, 8);
  bytes.writeUInt16LE(5, 16);
  bytes.writeUInt16LE(1, 18);
  bytes.write("plain", 20);
  bytes.writeUInt16LE(3, 25);
  bytes.write("a=1", 27);
  return bytes;
};
const socket = new WebSocket(process.argv[2], { perMessageDeflate: { threshold: 0 } });
await once(socket, "open");
assert.equal(socket.extensions, "", "compression is declined");
assert.equal(socket.protocol, "");
const whole = event(1, 1);
socket.send(whole.subarray(0, 1), { fin: false });
socket.ping("in between");
socket.send(whole.subarray(1, 29), { fin: false });
socket.send(whole.subarray(29), { fin: true });
assert.equal((await once(socket, "pong"))[0].toString(), "in between");
const text = '{"timestamp":2,"value":2,"series":"plain","tags":["a=1"]}';
socket.send(text.slice(0, 10), { fin: false, binary: false });
socket.send(text.slice(10), { fin: true });
for (let index = 3; index <= 5_000; index++) socket.send(event(index, index));
socket.close(4321, "done");
const [code, reason] = await once(socket, "close");
assert.deepEqual([code, reason.toString()], [4321, "done"]);
const other = new WebSocket(process.argv[2], ["unknown", "slung.plain"]);
await once(other, "open");
assert.equal(other.protocol, "slung.plain");
other.terminate();
"#;

/// The nth block of code of a page in that language.
fn block<'a>(page: &'a str, language: &str, index: usize) -> &'a str {
    let rest = page.split(&format!("```{language}\n")).nth(index + 1).expect("the page has such a block");
    rest.split("```").next().expect("a block ends")
}

/// A folder below the target directory that stays, for what is installed.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a tool to its end, which must be a good one.
fn succeed(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        panic!(
            "{} can't be started: this test needs python3 (with venv), node and npm",
            command.get_program().display()
        )
    };
    said(command, &output)
}

fn said(what: &Command, output: &Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{what:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// A Python that has the library.
fn python(folder: &Path) -> Command {
    let environment = folder.join("venv");
    let python = environment.join("bin/python");
    if !python.exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    }
    succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet", WEBSOCKETS]));
    let mut command = Command::new(python);
    command.current_dir(folder);
    command
}

/// A Node.js that finds the libraries.
fn node(folder: &Path) -> Command {
    fs::write(folder.join("package.json"), "{\"type\": \"module\", \"private\": true}\n").unwrap();
    fs::write(folder.join("ws.mjs"), WS_MJS).unwrap();
    let quiet = ["install", "--silent", "--no-fund", "--no-audit"];
    succeed(Command::new("npm").args(quiet).args(NPM).current_dir(folder));
    let mut command = Command::new("node");
    command.args(["--import", "./ws.mjs"]).current_dir(folder);
    command
}

/// Compiles as strictly as people do.
fn compile(folder: &Path, files: &[&str]) {
    let options = ["--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "--types", "node"];
    succeed(Command::new("node_modules/.bin/tsc").args(options).args(files).current_dir(folder));
}

/// Runs a producer that loses its server in the middle.
fn outlives_a_restart(mut driver: Command) {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = (folder.path().join("data"), folder.path().join("slung.toml"));
    let env = "ALERT_QUERY = \"AVG:cold:[]:[1h]\"\nALERT_BELOW = \"10\"\n";
    let alert = format!("[workflows.alert]\nfile = {:?}\n[workflows.alert.env]\n{env}", workflow("threshold-alert"));
    fs::write(&config, alert).unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let mut server = Server::start(&data, &args);
    driver.arg(server.ws_url()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = driver.spawn().expect("it was run before");
    server.wait_until("some are stored", |server| server.query("COUNT:s:[]").as_f64() > Some(30_000.0));
    assert!(child.try_wait().unwrap().is_none(), "it is still sending");
    let listen = server.addr();
    server.kill();
    server = Server::start_at(listen, &data, &args);
    let stdout = said(&driver, &child.wait_with_output().unwrap());
    assert!(stdout.starts_with("refused [6, 6] answer {"), "{stdout}");
    assert!(stdout.contains("\"value\":5"), "{stdout}");
    let stored = (0..EVENTS).filter(|index| ![500, 70_000].contains(index));
    assert_eq!(server.query("COUNT:s:[a=é]"), stored.clone().count() as f64);
    assert_eq!(server.query("SUM:s:[]"), stored.map(|index| index % 1_009).sum::<u64>() as f64);
    assert_eq!(server.query(&format!(":s:[]:[{START},{START}]")), 0.0);
}

/// Runs the page's own example, against a server at another address than it names.
fn example(page: &str, language: &str, server: &Server, file: &Path) {
    let code = block(page, language, 1);
    assert!(code.contains("ws://127.0.0.1:2077/"));
    fs::write(file, code.replace("ws://127.0.0.1:2077/", &server.ws_url())).unwrap();
}

#[test]
#[ignore = "installs packages; part of `cargo xtask test --long`"]
fn the_python_recipe_works_and_outlives_a_restart() {
    let folder = folder("python");
    let mut python = python(&folder);
    fs::write(folder.join("slung_producer.py"), block(PYTHON, "python", 0)).unwrap();
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    example(PYTHON, "python", &server, &folder.join("example.py"));
    let said = succeed(self::python(&folder).arg("example.py"));
    assert_eq!(said, "3600 events are on disk\n");
    assert_eq!(server.query("COUNT:temp:[sensor=1 AND room=kitchen]"), 3_600.0);
    drop(server);

    fs::write(folder.join("driver.py"), PYTHON_DRIVER).unwrap();
    python.arg("driver.py");
    outlives_a_restart(python);
}

#[test]
#[ignore = "installs packages; part of `cargo xtask test --long`"]
fn the_typescript_recipe_works_and_outlives_a_restart() {
    let folder = folder("typescript");
    let mut node = node(&folder);
    fs::write(folder.join("slung-producer.ts"), block(TYPESCRIPT, "ts", 0)).unwrap();
    fs::write(folder.join("driver.ts"), TYPESCRIPT_DRIVER).unwrap();
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    example(TYPESCRIPT, "ts", &server, &folder.join("example.ts"));
    compile(&folder, &["slung-producer.ts", "driver.ts", "example.ts"]);
    let said = succeed(Command::new("node").args(["--import", "./ws.mjs", "example.js"]).current_dir(&folder));
    assert_eq!(said, "3600 events are on disk\n");
    assert_eq!(server.query("COUNT:temp:[sensor=1 AND room=kitchen]"), 3_600.0);
    drop(server);

    node.arg("driver.js");
    outlives_a_restart(node);
}

#[test]
#[ignore = "installs packages; part of `cargo xtask test --long`"]
fn clients_that_others_wrote_find_a_websocket() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    for language in ["python", "typescript"] {
        let folder = folder(&format!("{language}-plain"));
        let mut client = match language {
            "python" => {
                fs::write(folder.join("plain.py"), PYTHON_PLAIN).unwrap();
                python(&folder)
            }
            _ => {
                fs::write(folder.join("plain.js"), NODE_PLAIN).unwrap();
                node(&folder)
            }
        };
        let file = if language == "python" { "plain.py" } else { "plain.js" };
        succeed(client.arg(file).arg(server.ws_url()));
        // The server answers a close frame once all before it is stored.
        assert_eq!(server.query("COUNT:plain:[a=1]"), 5_000.0, "{language}");
        assert_eq!(server.query("SUM:plain:[]"), (1..=5_000).sum::<u64>() as f64, "{language}");
        let output = slung().args(["delete", "plain:[]", "--yes", "--url", &server.http_url()]).output().unwrap();
        said(&slung(), &output);
    }
    assert_eq!(server.metric("slung_frames_refused_total"), 0.0);
}
