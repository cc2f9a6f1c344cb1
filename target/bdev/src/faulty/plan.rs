//! What fails when: the text that an operator writes, and the decision on each request. Nothing is failed in here.
//!
//! A plan is one rule, or several with `;` between them, of which the first that applies to a request decides:
//!
//! ```text
//! rule   = when what ["at" FIRST ["-" LAST]] ["with" effect] ["seed" N]
//! when   = "every" N | P "%" "of" | "all"
//! what   = "reads" | "writes" | "flushes" | "unmaps" | "compares" | "requests"
//! effect = "medium-error" | "read-error" | "write-error" | "no-space" | "write-protected" | "busy" | "aborted"
//!        | "gone" | "failed" | "hang" | "corruption" | "lost"
//! ```

use std::str::FromStr;

use crate::{Extent, Io, OpKind, Status};

/// What fails when. Made from a text such as `every 1000 writes`, `0.1% of reads with busy seed 7`,
/// `all reads at 2048-4095`, `every 10 writes with hang; every 100 reads with corruption`.
///
/// `every` counts the requests of one channel that a rule applies to, `%` throws dice that fall the same way for the
/// same seed and channel, and blocks are logical ones, first and last included. Without an effect it is a
/// `medium-error`: a read error for what reads, a write error for everything else. `hang` waits at the device's gate,
/// `corruption` turns a bit of what was read, `lost` is a write that is answered well and not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    rules: Vec<Rule>,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It ends at once with a read or a write error, whichever fits it.
    MediumError,
    /// It ends at once with this.
    Fail(Status),
    /// It waits.
    Hang,
    /// A read is done, and comes back wrong.
    Corrupt,
    /// A write is answered well, and not done.
    Lose,
}

/// Why a text is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultPlanError {
    /// A word that does not belong where it stands.
    #[error("{found:?} in {rule:?}: expected {expected}")]
    Unexpected {
        /// The rule it stands in.
        rule: String,
        /// The word; "" at the end of the rule.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// An effect that the operation cannot have.
    #[error("{effect:?} in {rule:?}: only of {only}")]
    Misfit {
        /// The rule it stands in.
        rule: String,
        /// The effect.
        effect: String,
        /// What it is for.
        only: &'static str,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    when: When,
    what: What,
    /// First and last block.
    blocks: Option<(u64, u64)>,
    effect: Effect,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Every(u64),
    /// Of 2^32.
    Chance(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    One(OpKind),
    Writes,
    All,
}

/// One channel's view of a plan.
#[derive(Debug)]
pub(super) struct Decider(Vec<Applied>);

#[derive(Debug)]
struct Applied {
    rule: Rule,
    count: u64,
    dice: u64,
}

impl FaultPlan {
    pub(super) fn decider(&self, channel: u64) -> Decider {
        let applied = |rule: &Rule| Applied {
            count: 0,
            // Neither seed nor channel may make it 0, where the dice would stay.
            dice: (rule.seed ^ channel.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd134_2543_de82_ef95) | 1,
            rule: rule.clone(),
        };
        Decider(self.rules.iter().map(applied).collect())
    }
}

impl Decider {
    pub(super) fn decide(&mut self, io: &Io<'_>) -> Option<Effect> {
        self.0.iter_mut().find_map(|applied| applied.decide(io))
    }
}

impl Applied {
    fn decide(&mut self, io: &Io<'_>) -> Option<Effect> {
        if !self.rule.applies(io) {
            return None;
        }
        let hit = match self.rule.when {
            When::Every(n) => {
                self.count += 1;
                self.count.is_multiple_of(n)
            }
            When::Chance(of_2_32) => self.throw() < of_2_32,
        };
        hit.then_some(self.rule.effect)
    }

    /// 32 bits of xorshift64*.
    fn throw(&mut self) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

impl Rule {
    fn applies(&self, io: &Io<'_>) -> bool {
        let kind = OpKind::of(io.op);
        let what = match self.what {
            What::All => true,
            What::One(one) => kind == one,
            What::Writes => matches!(kind, OpKind::Write | OpKind::Fill | OpKind::CompareAndWrite),
        };
        what && self.blocks.is_none_or(|(first, last)| {
            let touches = |extent: &Extent| {
                extent.blocks > 0 && extent.lba <= last && extent.lba.saturating_add(u64::from(extent.blocks)) > first
            };
            touches(&Extent { lba: io.lba, blocks: io.blocks }) || io.extents.iter().any(touches)
        })
    }

    fn parse(text: &str) -> Result<Rule, FaultPlanError> {
        let mut words = Words { rule: text, left: text.split_whitespace() };
        let when = words.when()?;
        let what = words.what()?;
        let mut rule = Rule { when, what, blocks: None, effect: Effect::MediumError, seed: 0 };
        let mut expected = "\"at\", \"with\", \"seed\", or the end";
        while let Some(word) = words.left.next() {
            match word {
                "at" if expected.contains("at") => {
                    rule.blocks = Some(words.blocks()?);
                    expected = "\"with\", \"seed\", or the end";
                }
                "with" if expected.contains("with") => {
                    rule.effect = words.effect(what)?;
                    expected = "\"seed\", or the end";
                }
                "seed" if expected.contains("seed") => {
                    rule.seed = words.number("a number, 0 to 18446744073709551615")?;
                    expected = "the end";
                }
                other => return Err(words.unexpected(other, expected)),
            }
        }
        Ok(rule)
    }
}

impl FromStr for FaultPlan {
    type Err = FaultPlanError;

    fn from_str(text: &str) -> Result<FaultPlan, FaultPlanError> {
        let rules = text.split(';').map(|rule| Rule::parse(rule.trim())).collect::<Result<_, _>>()?;
        Ok(FaultPlan { rules })
    }
}

/// The words of a rule that are left.
struct Words<'t> {
    rule: &'t str,
    left: std::str::SplitWhitespace<'t>,
}

impl Words<'_> {
    fn when(&mut self) -> Result<When, FaultPlanError> {
        let expected = "\"every N\", \"P% of\" or \"all\"";
        let word = self.left.next().unwrap_or_default();
        match word {
            "all" => Ok(When::Every(1)),
            "every" => {
                let expected = "a number, 1 or more";
                let number = self.number(expected)?;
                if number == 0 { Err(self.unexpected("0", expected)) } else { Ok(When::Every(number)) }
            }
            _ => {
                let number = word.strip_suffix('%').ok_or_else(|| self.unexpected(word, expected))?;
                let rate: f64 = number
                    .parse()
                    .ok()
                    .filter(|rate| (0.0..=100.0).contains(rate))
                    .ok_or_else(|| self.unexpected(word, "0% to 100%"))?;
                match self.left.next() {
                    Some("of") => Ok(When::Chance((rate / 100.0 * 4_294_967_296.0).round() as u64)),
                    other => Err(self.unexpected(other.unwrap_or_default(), "\"of\"")),
                }
            }
        }
    }

    fn what(&mut self) -> Result<What, FaultPlanError> {
        Ok(match self.left.next().unwrap_or_default() {
            "reads" => What::One(OpKind::Read),
            "writes" => What::Writes,
            "flushes" => What::One(OpKind::Flush),
            "unmaps" => What::One(OpKind::Unmap),
            "compares" => What::One(OpKind::Verify),
            "requests" => What::All,
            other => return Err(self.unexpected(other, "reads, writes, flushes, unmaps, compares or requests")),
        })
    }

    fn blocks(&mut self) -> Result<(u64, u64), FaultPlanError> {
        let expected = "a block, or FIRST-LAST";
        let word = self.left.next().unwrap_or_default();
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
            _ => Err(self.unexpected(word, expected)),
        }
    }

    fn effect(&mut self, what: What) -> Result<Effect, FaultPlanError> {
        let word = self.left.next().unwrap_or_default();
        let effect = match word {
            "medium-error" => Effect::MediumError,
            "read-error" => Effect::Fail(Status::ReadError),
            "write-error" => Effect::Fail(Status::WriteError),
            "no-space" => Effect::Fail(Status::NoSpace),
            "write-protected" => Effect::Fail(Status::WriteProtected),
            "busy" => Effect::Fail(Status::Busy),
            "aborted" => Effect::Fail(Status::Aborted),
            "gone" => Effect::Fail(Status::Gone),
            "failed" => Effect::Fail(Status::Failed),
            "hang" => Effect::Hang,
            "corruption" => Effect::Corrupt,
            "lost" => Effect::Lose,
            other => return Err(self.unexpected(other, EFFECTS)),
        };
        let only = match effect {
            Effect::Corrupt if what != What::One(OpKind::Read) => "reads",
            Effect::Lose if what != What::Writes => "writes",
            _ => return Ok(effect),
        };
        Err(FaultPlanError::Misfit { rule: self.rule.to_owned(), effect: word.to_owned(), only })
    }

    fn number(&mut self, expected: &'static str) -> Result<u64, FaultPlanError> {
        let word = self.left.next().unwrap_or_default();
        word.parse().map_err(|_| self.unexpected(word, expected))
    }

    fn unexpected(&self, found: &str, expected: &'static str) -> FaultPlanError {
        FaultPlanError::Unexpected { rule: self.rule.to_owned(), found: found.to_owned(), expected }
    }
}

const EFFECTS: &str = "medium-error, read-error, write-error, no-space, write-protected, busy, aborted, gone, failed, \
                       hang, corruption or lost";
