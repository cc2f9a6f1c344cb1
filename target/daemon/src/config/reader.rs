//! Reads typed values out of a parsed TOML text and notes every problem with its place, instead of stopping at the
//! first as a serde deserialiser does. What the values mean is decided by the sections (`bdev`, `scsi`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::name::Name;
use super::problem::{Problem, Reason};
use super::words::Words;

/// A JSON object.
pub(super) type JsonObject = serde_json::Map<String, Json>;

/// Where a key or value stands in the text.
#[derive(Clone, Debug)]
pub(super) struct Place<'t> {
    key: String,
    text: &'t str,
    span: Range<usize>,
    has_value: bool,
}

impl<'t> Place<'t> {
    /// The key path, such as `scsi[0].lun[1].bdev`.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Key path and line, for naming the first of two.
    pub(super) fn named(&self) -> String {
        format!("{} (line {})", self.key, self.line())
    }

    /// A problem at this place.
    pub(super) fn problem(&self, reason: Reason) -> Problem {
        Problem { line: Some(self.line()), key: self.key.clone(), value: self.value(), reason }
    }

    /// The name of a key under this place.
    fn child(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }

    fn line(&self) -> usize {
        line_of(self.text, self.span.start)
    }

    /// The value as written: its first line, shortened.
    fn value(&self) -> Option<String> {
        const MOST_CHARS: usize = 60;
        let written = self.text.get(self.span.clone()).filter(|_| self.has_value)?;
        let first_line = written.lines().next().unwrap_or_default();
        let mut shown: String = first_line.chars().take(MOST_CHARS).collect();
        if shown.len() < written.len() {
            shown.push_str(" …");
        }
        Some(shown)
    }
}

/// The line of the byte at `offset`, counted from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    /// Notes a problem at `place`.
    pub(super) fn at(&mut self, place: &Place<'_>, reason: Reason) {
        self.found.push(place.problem(reason));
    }

    /// Everything noted, in the order of the lines.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.line);
        self.found
    }
}

/// Things that may exist once, and where the first of each stands.
#[derive(Debug)]
pub(super) struct Unique<'t, K> {
    first: BTreeMap<K, Place<'t>>,
}

impl<'t, K: Ord> Unique<'t, K> {
    pub(super) fn new() -> Self {
        Self { first: BTreeMap::new() }
    }

    /// Notes a problem at `place` if `key` was claimed before.
    pub(super) fn claim(&mut self, key: K, place: &Place<'t>, problems: &mut Problems) {
        self.claim_because(key, place, problems, |first| Reason::Duplicate { first });
    }

    /// The same with a reason of the caller, who is told where the first one stands.
    pub(super) fn claim_because(
        &mut self,
        key: K,
        place: &Place<'t>,
        problems: &mut Problems,
        reason: impl FnOnce(String) -> Reason,
    ) {
        match self.first.get(&key) {
            Some(first) => problems.at(place, reason(first.named())),
            None => _ = self.first.insert(key, place.clone()),
        }
    }
}

/// A table that is being read: keys are taken out of it, and what is left at the end is unknown.
#[derive(Debug)]
pub(super) struct Section<'t> {
    place: Place<'t>,
    table: DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// The whole text.
    pub(super) fn root(text: &'t str, table: DeTable<'t>) -> Self {
        let place = Place { key: String::new(), text, span: 0..0, has_value: false };
        Self { place, table, known: Vec::new() }
    }

    /// Where the table begins.
    pub(super) fn place(&self) -> &Place<'t> {
        &self.place
    }

    /// The value of `key`, which may be absent.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field<'t>> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        let place = Place { key: self.place.child(key), text: self.place.text, span: value.span(), has_value: true };
        Some(Field { place, value: value.into_inner() })
    }

    /// The value of `key`; noted as missing if it is absent.
    pub(super) fn require(&mut self, key: &'static str, problems: &mut Problems) -> Option<Field<'t>> {
        let field = self.take(key);
        if field.is_none() {
            let place = Place { key: self.place.child(key), ..self.place.clone() };
            problems.at(&place, Reason::Missing);
        }
        field
    }

    /// The table at `key`; an empty one if it is absent.
    pub(super) fn table(&mut self, key: &'static str, problems: &mut Problems) -> Section<'t> {
        let absent = Place { key: self.place.child(key), ..self.place.clone() };
        self.take(key).and_then(|field| field.into_section(problems)).unwrap_or(Section {
            place: absent,
            table: DeTable::new(),
            known: Vec::new(),
        })
    }

    /// The array of tables at `key`; an empty one if it is absent.
    pub(super) fn tables(&mut self, key: &'static str, problems: &mut Problems) -> Vec<Section<'t>> {
        let Some(field) = self.take(key) else { return Vec::new() };
        match field.value {
            DeValue::Array(_) => {
                let fields = field.into_list(problems).unwrap_or_default();
                fields.into_iter().filter_map(|field| field.into_section(problems)).collect()
            }
            ref other => {
                let expected = "an array of tables ([[…]])";
                problems.at(&field.heading(), Reason::WrongType { expected, found: kind_of(other) });
                Vec::new()
            }
        }
    }

    /// Accepts whatever keys are left.
    pub(super) fn skip_rest(&mut self) {
        self.table.clear();
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self, problems: &mut Problems) {
        for key in self.table.keys() {
            let place = Place {
                key: self.place.child(key.get_ref()),
                text: self.place.text,
                span: key.span(),
                has_value: false,
            };
            problems.at(&place, Reason::UnknownKey { known: self.known.join(", ") });
        }
    }
}

/// A value and its place. The readers return nothing for a value of the wrong type, and note why.
#[derive(Debug)]
pub(super) struct Field<'t> {
    place: Place<'t>,
    value: DeValue<'t>,
}

impl<'t> Field<'t> {
    /// Where the value stands.
    pub(super) fn place(&self) -> &Place<'t> {
        &self.place
    }

    /// The raw value, for keys that may have one of two types.
    pub(super) fn raw(&self) -> &DeValue<'t> {
        &self.value
    }

    /// A string.
    pub(super) fn string(&self, problems: &mut Problems) -> Option<&str> {
        match &self.value {
            DeValue::String(text) => Some(text),
            _ => self.wrong_type("a string", problems),
        }
    }

    /// A boolean.
    pub(super) fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        match &self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_type("true or false", problems),
        }
    }

    /// An integer within `bounds`.
    pub(super) fn integer<N>(&self, bounds: RangeInclusive<N>, problems: &mut Problems) -> Option<N>
    where
        N: Copy + Into<u64> + TryFrom<u64>,
    {
        self.integer_because(bounds, "", problems)
    }

    /// An integer within `bounds`; `why` tells where the bound comes from.
    pub(super) fn integer_because<N>(&self, bounds: RangeInclusive<N>, why: &str, problems: &mut Problems) -> Option<N>
    where
        N: Copy + Into<u64> + TryFrom<u64>,
    {
        let DeValue::Integer(integer) = &self.value else {
            return self.wrong_type("an integer", problems);
        };
        let (min, max): (u64, u64) = ((*bounds.start()).into(), (*bounds.end()).into());
        // Negative numbers and those beyond 64 bits are outside like any other.
        let value = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.filter(|value| (min..=max).contains(value)).and_then(|value| N::try_from(value).ok());
        if value.is_none() {
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            problems.at(&self.place, Reason::OutOfRange { min, max, why });
        }
        value
    }

    /// One of the words of `W`.
    pub(super) fn word<W: Words>(&self, problems: &mut Problems) -> Option<W> {
        let word = W::from_word(self.string(problems)?);
        if word.is_none() {
            problems.at(&self.place, Reason::NotOneOf { known: W::known() });
        }
        word
    }

    /// A name.
    pub(super) fn name(&self, problems: &mut Problems) -> Option<Name> {
        let name = Name::new(self.string(problems)?);
        if name.is_none() {
            problems.at(&self.place, Reason::NotAName);
        }
        name
    }

    /// The entries of an array.
    pub(super) fn into_list(self, problems: &mut Problems) -> Option<Vec<Field<'t>>> {
        let DeValue::Array(array) = self.value else {
            return self.wrong_type("an array", problems);
        };
        let entry = |(index, value): (usize, Spanned<DeValue<'t>>)| {
            let key = format!("{}[{index}]", self.place.key);
            let place = Place { key, text: self.place.text, span: value.span(), has_value: true };
            Field { place, value: value.into_inner() }
        };
        Some(array.into_iter().enumerate().map(entry).collect())
    }

    /// The table as a JSON object. JSON has no dates, and no numbers that are infinite or none.
    pub(super) fn into_json_object(self, problems: &mut Problems) -> Option<JsonObject> {
        match self.value {
            DeValue::Table(_) => match self.into_json(problems)? {
                Json::Object(object) => Some(object),
                _ => None,
            },
            _ => self.wrong_type("a table", problems),
        }
    }

    /// All of a table or an array is read, and its problems noted, before the first wrong one ends it.
    fn into_json(self, problems: &mut Problems) -> Option<Json> {
        match self.value {
            DeValue::String(text) => Some(Json::from(&*text)),
            DeValue::Boolean(value) => Some(Json::from(value)),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Some(Json::from(integer)),
                Err(_) => {
                    problems.at(&self.place, Reason::TooLarge);
                    None
                }
            },
            DeValue::Float(ref float) => match float.as_str().parse().ok().and_then(serde_json::Number::from_f64) {
                Some(number) => Some(Json::Number(number)),
                None => self.wrong_type("a finite number", problems),
            },
            DeValue::Array(_) => {
                let entries: Vec<_> =
                    self.into_list(problems)?.into_iter().map(|entry| entry.into_json(problems)).collect();
                entries.into_iter().collect::<Option<Vec<Json>>>().map(Json::Array)
            }
            DeValue::Table(table) => {
                let entry = |(key, value): (Spanned<Cow<'_, str>>, Spanned<DeValue<'t>>)| {
                    let key = key.into_inner().into_owned();
                    let (text, span) = (self.place.text, value.span());
                    let place = Place { key: self.place.child(&key), text, span, has_value: true };
                    (key, Field { place, value: value.into_inner() })
                };
                let entries: Vec<_> =
                    table.into_iter().map(entry).map(|(key, field)| Some((key, field.into_json(problems)?))).collect();
                entries.into_iter().collect::<Option<JsonObject>>().map(Json::Object)
            }
            DeValue::Datetime(_) => self.wrong_type("a value that JSON has", problems),
        }
    }

    /// A table.
    fn into_section(self, problems: &mut Problems) -> Option<Section<'t>> {
        let place = self.heading();
        match self.value {
            DeValue::Table(table) => Some(Section { place, table, known: Vec::new() }),
            _ => self.wrong_type("a table", problems),
        }
    }

    /// The place without the value, which is long or spread over the text when it is a table.
    fn heading(&self) -> Place<'t> {
        Place { has_value: false, ..self.place.clone() }
    }

    fn wrong_type<T>(&self, expected: &'static str, problems: &mut Problems) -> Option<T> {
        let place = if matches!(self.value, DeValue::Table(_)) { self.heading() } else { self.place.clone() };
        problems.at(&place, Reason::WrongType { expected, found: kind_of(&self.value) });
        None
    }
}

/// The TOML type of a value, with its article.
fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
