//! `slung verify`: reads every byte of a data directory and names what is wrong.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use slung_store::tools::{self, Found};
use slung_store::{Damage, OsVfs};

use crate::cli::VerifyArgs;
use crate::show::{bytes, bytes_bar, count, range, show};

/// Prints what is damaged, then how it stands; the exit code says the same.
pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    Ok(if verify_dir(&args.dir)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether all is well there. Says so, or what is not.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) fn verify_dir(dir: &Path) -> anyhow::Result<bool> {
    let bar = bytes_bar("reading");
    let verified = tools::verify(Arc::new(OsVfs), dir, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let verified = verified?;
    for found in &verified.damage {
        println!("{}", describe(found));
    }
    if let Some(trimmed) = &verified.trimmed {
        println!("no damage: {trimmed}, as a crash leaves it, or a server that is just writing");
    }
    let dir = dir.display();
    let read = format!(
        "{}, {} and {} read",
        count(verified.points, "point", "points"),
        count(verified.segments, "segment", "segments"),
        bytes(verified.bytes)
    );
    if let Some(error) = &verified.unusable {
        println!("{dir}: no server can open it: {error}");
    } else if verified.is_whole() {
        println!("{dir}: whole: {read}");
    } else {
        let places = count(verified.damage.len() as u64, "damage", "damages");
        println!("{dir}: {places}; all else is whole: {read}");
    }
    Ok(verified.is_whole())
}

fn describe(found: &Found) -> String {
    let Damage { path, offset, reason, series, range: lost } = &found.damage;
    let whose = match (&found.key, series) {
        (Some(key), _) => key.to_string(),
        (None, Some(id)) => format!("series {}", id.0),
        (None, None) => "any series".to_owned(),
    };
    format!(
        "{}: damaged at byte {offset}: {reason}; points of {whose} may be missing, {}",
        path.display(),
        range(*lost)
    )
}
