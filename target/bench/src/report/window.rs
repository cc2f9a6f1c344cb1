//! Windows as files have them, and what is wrong with a file that has none.
//!
//! A file is a sequence of JSON objects, of three kinds:
//!
//! | object | what |
//! |---|---|
//! | `{"machine":[[NAME,VALUE],…]}` | what `bench machine --json` prints |
//! | `{"who":…,"case":…,"round":…,"result":{…}}` | one window. Optional: `"cores_ns":[…,…]`, the round trip of a cache line between the two cores before and after it, and `"target_busy"`, the target's useful share of its core, 0 to 1 |
//! | a result alone | one window of whoever the file is named after |
//!
//! A result is what `bench scsi --json` or `bench net --json` prints. Of one that another tool measured `iops` or `mpps` is
//! needed, and `lat_us` has what it knows.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cores::NEAR_BELOW_NS;
use crate::histogram::LatencyHistogram;
use crate::machine::Facts;

/// What all files together hold.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub machine: Facts,
    pub windows: Vec<Window>,
}

/// One measurement.
#[derive(Debug)]
pub(super) struct Window {
    /// The target.
    pub who: String,
    pub case: String,
    /// Windows of one case and one round were measured within the same seconds.
    pub round: u64,
    pub cores: Option<Cores>,
    pub unit: Unit,
    /// By the second.
    pub rate: f64,
    pub latency: Percentiles,
    pub histogram: Option<LatencyHistogram>,
    /// Another thread had the client's core for a part of the time.
    pub disturbed: bool,
    pub target_busy: Option<f64>,
    /// Why it counts for nothing, if it does not.
    pub failed: Option<String>,
}

/// Latencies in microseconds, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Percentiles {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    #[serde(rename = "IOPS")]
    Iops,
    #[serde(rename = "packets/s")]
    Packets,
}

/// How far the two cores were apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cores {
    /// Near before and after.
    Near,
    /// They moved meanwhile.
    Mixed,
    /// Far before and after.
    Far,
}

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InputError {
    /// No JSON.
    #[error("{file}: {problem}")]
    Syntax { file: String, problem: String },
    /// JSON, and no window.
    #[error("{file}:{line}: {field}: {problem}")]
    Field { file: String, line: usize, field: String, problem: String },
    /// Nothing to sum up.
    #[error("no window in any of the files")]
    Empty,
    /// Two units in one case cannot be compared.
    #[error("case {case}: some windows count {}, others {}", .units[0].name(), .units[1].name())]
    Units { case: String, units: [Unit; 2] },
}

impl Input {
    /// Adds what the text of a file has.
    pub(super) fn read(&mut self, path: &Path, text: &str) -> Result<(), InputError> {
        let file = path.display().to_string();
        let who = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        loop {
            let rest = &text[values.byte_offset()..];
            let blank = rest.len() - rest.trim_start().len();
            let line = 1 + text[..values.byte_offset() + blank].matches('\n').count();
            let Some(value) = values.next() else { return Ok(()) };
            let value = value.map_err(|error| InputError::Syntax { file: file.clone(), problem: error.to_string() })?;
            self.take(&value, &who).map_err(|FieldError { field, problem }| InputError::Field {
                file: file.clone(),
                line,
                field,
                problem,
            })?;
        }
    }

    /// Checks that there is something, and that what is compared can be.
    pub(super) fn check(&self) -> Result<(), InputError> {
        if self.windows.is_empty() {
            return Err(InputError::Empty);
        }
        let differs = |window: &Window| {
            let first = self.windows.iter().find(|first| first.case == window.case)?;
            let units = [first.unit, window.unit];
            (units[0] != units[1]).then(|| InputError::Units { case: window.case.clone(), units })
        };
        self.windows.iter().find_map(differs).map_or(Ok(()), Err)
    }

    fn take(&mut self, value: &Value, file: &str) -> Result<(), FieldError> {
        let object = Object::root(value)?;
        if object.has("machine") {
            self.machine.extend(object.pairs("machine")?);
            return Ok(());
        }
        let window = if !object.has("result") && (object.has("iops") || object.has("mpps")) {
            let case = own_case(&object)?;
            let earlier = self.windows.iter().filter(|window| window.who == file && window.case == case).count();
            Window::new(file.to_owned(), case, earlier as u64 + 1, &object)?
        } else {
            let mut window = Window::new(
                object.text("who")?,
                object.text("case")?,
                object.whole("round")?,
                &object.object("result")?,
            )?;
            window.cores = object.numbers("cores_ns")?.map(Cores::of);
            window.target_busy = object.optional("target_busy")?;
            window
        };
        self.windows.push(window);
        Ok(())
    }
}

impl Window {
    fn new(who: String, case: String, round: u64, result: &Object<'_>) -> Result<Window, FieldError> {
        let (unit, rate) = match result.optional("iops")? {
            Some(iops) => (Unit::Iops, iops),
            None => (Unit::Packets, result.number("mpps")? * 1e6),
        };
        let waits = result.flag("interrupt")?;
        let cpu = result.optional("cpu")?;
        Ok(Window {
            who,
            case,
            round,
            cores: None,
            unit,
            rate,
            latency: percentiles(result)?,
            histogram: histogram(result)?,
            disturbed: !waits && cpu.is_some_and(|cpu| cpu < UNDISTURBED),
            target_busy: None,
            failed: failure(result, rate)?,
        })
    }
}

/// Why the result counts for nothing, if it does not.
fn failure(result: &Object<'_>, rate: f64) -> Result<Option<String>, FieldError> {
    let failure = result.optional_text("failure")?;
    let count =
        |name: &str| Ok(result.optional(name)?.filter(|count| *count > 0.0).map(|count| format!("{name} {count}")));
    let (errors, lost) = (count("errors")?, count("lost")?);
    Ok(failure.or(errors).or(lost).or_else(|| (rate <= 0.0).then(|| "nothing was measured".to_owned())))
}

/// Latencies that are 0 were not measured.
fn percentiles(result: &Object<'_>) -> Result<Percentiles, FieldError> {
    if !result.has("lat_us") {
        return Ok(Percentiles::default());
    }
    let latency = result.object("lat_us")?;
    let of = |name| Ok(latency.optional(name)?.filter(|micros| *micros > 0.0));
    Ok(Percentiles { p50: of("p50")?, p99: of("p99")?, p999: of("p999")? })
}

fn histogram(result: &Object<'_>) -> Result<Option<LatencyHistogram>, FieldError> {
    let Some(text) = result.optional_text("lat_hist_ns")? else { return Ok(None) };
    LatencyHistogram::decode(&text).map(Some).map_err(|error| result.problem("lat_hist_ns", error.to_string()))
}

/// What a result that stands alone measured, in the words of the command line.
fn own_case(result: &Object<'_>) -> Result<String, FieldError> {
    let ring = result.text("ring")?;
    let queues = Some(result.whole("queues")?).filter(|queues| *queues > 1);
    let queues = queues.map_or_else(String::new, |queues| format!("/q{queues}"));
    if result.has("mpps") {
        return Ok(format!("net/{}/{}B/{ring}{queues}", result.text("mode")?, result.whole("size")?));
    }
    let bs = result.whole("bs")?;
    let bs = if bs.is_multiple_of(1024) { format!("{}k", bs / 1024) } else { bs.to_string() };
    Ok(format!("scsi/{}/{bs}/qd{}/{ring}{queues}", result.text("rw")?, result.whole("qd")?))
}

impl Cores {
    fn of(nanos: [f64; 2]) -> Cores {
        match nanos.map(|nanos| nanos < NEAR_BELOW_NS) {
            [true, true] => Cores::Near,
            [false, false] => Cores::Far,
            _ => Cores::Mixed,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Cores::Near => "near",
            Cores::Mixed => "mixed",
            Cores::Far => "far",
        }
    }
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::Iops => "IOPS",
            Unit::Packets => "packets/s",
        }
    }
}

/// A JSON object and where it stands.
struct Object<'a> {
    map: &'a Map<String, Value>,
    /// Names of the objects around it, each with a point.
    path: String,
}

/// A field that is not what it must be.
#[derive(Debug)]
struct FieldError {
    field: String,
    problem: String,
}

impl<'a> Object<'a> {
    fn root(value: &'a Value) -> Result<Object<'a>, FieldError> {
        let problem = || FieldError { field: "window".to_owned(), problem: "must be an object".to_owned() };
        Ok(Object { map: value.as_object().ok_or_else(problem)?, path: String::new() })
    }

    fn problem(&self, name: &str, problem: impl Into<String>) -> FieldError {
        FieldError { field: format!("{}{name}", self.path), problem: problem.into() }
    }

    fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// `None` if it is not there, or null.
    fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T, FieldError> {
        value.ok_or_else(|| self.problem(name, "is missing"))
    }

    /// An object one level down.
    fn object(&self, name: &str) -> Result<Object<'a>, FieldError> {
        let map = self.needed(name, self.value(name))?.as_object();
        Ok(Object {
            map: map.ok_or_else(|| self.problem(name, "must be an object"))?,
            path: format!("{}{name}.", self.path),
        })
    }

    fn optional(&self, name: &str) -> Result<Option<f64>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite() && *number >= 0.0);
        number.map(Some).ok_or_else(|| self.problem(name, format!("must be a number of at least 0, is {value}")))
    }

    fn number(&self, name: &str) -> Result<f64, FieldError> {
        self.needed(name, self.optional(name)?)
    }

    fn whole(&self, name: &str) -> Result<u64, FieldError> {
        let value = self.needed(name, self.value(name))?;
        value.as_u64().ok_or_else(|| self.problem(name, format!("must be a whole number, is {value}")))
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let text = value.as_str().map(|text| Some(text.to_owned()));
        text.ok_or_else(|| self.problem(name, format!("must be a text, is {value}")))
    }

    fn text(&self, name: &str) -> Result<String, FieldError> {
        let text = self.needed(name, self.optional_text(name)?)?;
        if text.is_empty() { Err(self.problem(name, "must not be empty")) } else { Ok(text) }
    }

    /// `false` if it is not there.
    fn flag(&self, name: &str) -> Result<bool, FieldError> {
        let Some(value) = self.value(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.problem(name, format!("must be true or false, is {value}")))
    }

    /// Two numbers.
    fn numbers(&self, name: &str) -> Result<Option<[f64; 2]>, FieldError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let numbers = || match value.as_array()?.as_slice() {
            [first, second] => Some([first.as_f64()?, second.as_f64()?]),
            _ => None,
        };
        numbers().map(Some).ok_or_else(|| self.problem(name, format!("must be two numbers, is {value}")))
    }

    /// A list of pairs of texts.
    fn pairs(&self, name: &str) -> Result<Facts, FieldError> {
        let value = self.needed(name, self.value(name))?;
        let pair = |value: &Value| match value.as_array()?.as_slice() {
            [first, second] => Some((first.as_str()?.to_owned(), second.as_str()?.to_owned())),
            _ => None,
        };
        let pairs = || value.as_array()?.iter().map(pair).collect::<Option<Facts>>();
        pairs().ok_or_else(|| self.problem(name, "must be a list of pairs of texts"))
    }
}

/// Below this share of its core the client was kept from working.
const UNDISTURBED: f64 = 0.95;
