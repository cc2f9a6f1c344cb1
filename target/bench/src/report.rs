//! What windows come to: medians with their spread, ratios with intervals, and plots.
//!
//! [`run`] is `ringside bench report`. It reads windows (`window`), sums them up by case, target and distance of the cores
//! (`summary`, `statistics`), and says it as a table (`table`), as JSON, and as one HTML page without any other file
//! (`page`, `plot`, `series`). A run of its own gives the page of its one window with `--report`. Nothing is measured here.

mod page;
mod plot;
mod series;
mod statistics;
mod summary;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod window;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::machine;
use summary::Summary;
use window::Input;

/// What to read, and where to write.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files of windows, one JSON object a line: `{"who":…,"case":…,"round":…,"cores_ns":[…,…],"result":{…}}` with what `bench
    /// scsi --json` or `bench net --json` printed as result, such a result alone, or `{"machine":[[NAME,VALUE],…]}`
    #[arg(value_name = "WINDOWS", required = true)]
    pub windows: Vec<PathBuf>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write figures and plots as one HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Prints the table on standard output, and writes what is asked for. Ratios are those of the first target of a case to each
/// of its others.
///
/// # Errors
/// A file that cannot be read or written, or that has something else in it than windows: its name, the line and the field.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut input = Input::default();
    for path in &args.windows {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        input.read(path, &text)?;
    }
    input.check()?;
    let summary = Summary::new(&input);
    write!(io::stdout().lock(), "{}", table::Table(&summary)).context("standard output")?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&summary).expect("numbers, texts and lists of them");
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.html {
        fs::write(path, page::html(&input, &summary)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The page of one run, opened before the run, so that none is in vain.
pub(crate) struct OneRun {
    path: PathBuf,
    file: File,
}

impl OneRun {
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn create(path: &Path) -> anyhow::Result<OneRun> {
        let file = File::create(path).with_context(|| format!("--report {}", path.display()))?;
        Ok(OneRun { path: path.to_owned(), file })
    }

    /// Writes the page of a run whose JSON form this is.
    ///
    /// # Errors
    /// Those of the file.
    pub(crate) fn write(mut self, outcome: &str, core: Option<usize>) -> anyhow::Result<()> {
        let mut input = Input { machine: machine::facts(Path::new("/"), core.as_slice()), ..Input::default() };
        input.read(Path::new("ringside"), outcome)?;
        let page = page::html(&input, &Summary::new(&input))?;
        self.file.write_all(page.as_bytes()).with_context(|| self.path.display().to_string())
    }
}
