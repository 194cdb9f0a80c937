//! The project's own tools, as `cargo xtask COMMAND`. They use no crate of ours, so they work while ours do not build.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks on both")]

mod c;
mod guests;
mod pipelines;
mod process;
mod steps;
mod tidy;
mod workspace;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use steps::Steps;
use workspace::Workspace;

const HELP: &str = "\
The project's own tools.

Usage: cargo xtask COMMAND

Commands:
  build-workflows  Compile every workflow to target/workflows/NAME.wasm and check each with `slung check`.
                   Finds a toolchain for wasm32-wasip1, or installs one, and says which. Those in C are compiled
                   where clang is there.
  test [--long]    Build the workflows, then run all tests: unit, property, integration, documentation and
                   end-to-end tests of the workspace, and the workflows natively.
                   --long runs the tests that are marked `ignored` too, and fuzzes what strangers send
                   (needs nightly and cargo-fuzz).
  demo [ARGS]      Build what is needed and run `slung demo`. ARGS go to it (`cargo xtask demo -- --help` lists them).
  simulate [--seed N] [--minutes M]
                   Random lives of a store on a simulated disk, against sorted maps, for M minutes (default 1; one life
                   at least), from seed N on (default 0). A failure names its seed, with which it comes again.
  tidy             Check what the compiler does not: layering, first lines, links, paths, READMEs, unsafe code.
  ci               Everything that has to pass: format, tidy, clippy, documentation, test.

Everything is built below cargo's target directory. Exit status: 0 all well, 1 a step failed, 2 wrong usage;
`demo` ends with the status of `slung demo`.
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    BuildWorkflows,
    Test { long: bool },
    Demo(Vec<OsString>),
    Simulate { seed: u64, minutes: u64 },
    Tidy,
    Ci,
}

fn main() -> ExitCode {
    let task = match parse(env::args_os().skip(1).collect()) {
        Ok(Task::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(task) => task,
        Err(what) => {
            eprintln!("error: {what}\nSee `cargo xtask --help`.");
            return ExitCode::from(2);
        }
    };
    let mut steps = Steps::new();
    let result = Workspace::find().and_then(|workspace| run(&task, &workspace, &mut steps));
    if matches!(task, Task::Test { .. } | Task::Ci) {
        eprint!("\n{}", steps.table());
    }
    match result {
        Ok(status) => status,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task, workspace: &Workspace, steps: &mut Steps) -> Result<ExitCode, String> {
    match task {
        Task::Help => {}
        Task::BuildWorkflows => guests::build_workflows(workspace, steps)?,
        Task::Test { long } => pipelines::test(workspace, steps, *long)?,
        Task::Demo(arguments) => return pipelines::demo(workspace, steps, arguments),
        Task::Simulate { seed, minutes } => pipelines::simulate(workspace, steps, *seed, *minutes)?,
        Task::Tidy => steps.run("tidy", || tidy::check(workspace))?,
        Task::Ci => pipelines::ci(workspace, steps)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(mut arguments: Vec<OsString>) -> Result<Task, String> {
    if arguments.is_empty() {
        return Err("a command is missing".into());
    }
    let command = arguments.remove(0);
    let command = command.to_string_lossy();
    let asks_help = arguments.first().is_some_and(|first| first == "--help" || first == "-h");
    if asks_help || matches!(&*command, "--help" | "-h" | "help") {
        return Ok(Task::Help);
    }
    if command == "demo" {
        if arguments.first().is_some_and(|first| first == "--") {
            arguments.remove(0);
        }
        return Ok(Task::Demo(arguments));
    }
    if command == "simulate" {
        return parse_simulate(&arguments);
    }
    let mut long = false;
    for argument in arguments {
        if command == "test" && argument == "--long" {
            long = true;
        } else {
            return Err(format!("`{command}` does not take `{}`", argument.to_string_lossy()));
        }
    }
    match &*command {
        "build-workflows" => Ok(Task::BuildWorkflows),
        "test" => Ok(Task::Test { long }),
        "tidy" => Ok(Task::Tidy),
        "ci" => Ok(Task::Ci),
        other => Err(format!("there is no command `{other}`")),
    }
}

fn parse_simulate(arguments: &[OsString]) -> Result<Task, String> {
    let (mut seed, mut minutes) = (0, 1);
    for pair in arguments.chunks(2) {
        let name = pair[0].to_string_lossy();
        let number = match &*name {
            "--seed" => &mut seed,
            "--minutes" => &mut minutes,
            _ => return Err(format!("`simulate` does not take `{name}`")),
        };
        let text = pair.get(1).map(|text| text.to_string_lossy()).unwrap_or_default();
        *number = text.parse().map_err(|_| format!("`{name}` takes a number, not `{text}`"))?;
    }
    Ok(Task::Simulate { seed, minutes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn command_lines() {
        assert_eq!(parsed("--help"), Ok(Task::Help));
        assert_eq!(parsed("test -h"), Ok(Task::Help));
        assert_eq!(parsed("build-workflows"), Ok(Task::BuildWorkflows));
        assert_eq!(parsed("test"), Ok(Task::Test { long: false }));
        assert_eq!(parsed("test --long"), Ok(Task::Test { long: true }));
        assert_eq!(parsed("tidy"), Ok(Task::Tidy));
        assert_eq!(parsed("ci"), Ok(Task::Ci));
        assert_eq!(parsed("demo"), Ok(Task::Demo(vec![])));
        assert_eq!(parsed("demo --speed 10"), Ok(Task::Demo(vec!["--speed".into(), "10".into()])));
        assert_eq!(parsed("demo -- --help"), Ok(Task::Demo(vec!["--help".into()])));
        assert_eq!(parsed("simulate"), Ok(Task::Simulate { seed: 0, minutes: 1 }));
        assert_eq!(parsed("simulate --minutes 30 --seed 7"), Ok(Task::Simulate { seed: 7, minutes: 30 }));
        for wrong in
            ["simulate --seed", "simulate --seed x", "simulate 7", "", "tests", "ci --long", "tidy all", "test --short"]
        {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_names_every_command() {
        for command in ["build-workflows", "test", "demo", "simulate", "tidy", "ci"] {
            assert!(HELP.contains(&format!("\n  {command} ")), "{command}");
            assert!(parsed(command).is_ok(), "{command}");
        }
    }
}
