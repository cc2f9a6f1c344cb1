//! Medians, spreads, and ratios of medians with bootstrap intervals. Plain numbers in and out.

use serde::Serialize;

use crate::numbers::Numbers;

/// How values of the same kind lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub min: f64,
    /// A quarter of the values is at most this.
    pub q1: f64,
    pub median: f64,
    /// Three quarters of the values are at most this.
    pub q3: f64,
    pub max: f64,
}

/// A ratio of medians.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// How many pairs of values it is taken from.
    pub pairs: usize,
    /// Median of the first values by median of the second ones.
    pub ratio: f64,
    /// Where 95 % of its bootstrap lie; `None` of fewer than [`LEAST_PAIRS`] pairs.
    pub interval: Option<[f64; 2]>,
}

impl Spread {
    /// `None` without values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let at = |share| quantile(&values, share);
        Some(Spread { min, q1: at(0.25), median: at(0.5), q3: at(0.75), max })
    }
}

impl Ratio {
    /// The ratio of pairs that were measured within the same seconds. Its interval is a percentile bootstrap that draws whole
    /// pairs, so what a pair has in common (the machine's mood) does not widen it. The same pairs always give the same interval.
    ///
    /// `None` without pairs, or if the second values are 0.
    pub(super) fn of(pairs: &[(f64, f64)]) -> Option<Ratio> {
        let ratio = ratio_of_medians(pairs.iter().copied()).filter(|ratio| ratio.is_finite())?;
        let interval = (pairs.len() >= LEAST_PAIRS).then(|| interval(pairs));
        Some(Ratio { pairs: pairs.len(), ratio, interval })
    }
}

fn interval(pairs: &[(f64, f64)]) -> [f64; 2] {
    let mut numbers = Numbers::new(SEED);
    let mut draw = || {
        let drawn = pairs.iter().map(|_| pairs[numbers.below(pairs.len() as u64) as usize]);
        ratio_of_medians(drawn).expect("as many as there are pairs")
    };
    let mut ratios: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
    ratios.sort_by(f64::total_cmp);
    let tail = DRAWS / 40; // 2.5 %
    [ratios[tail], ratios[DRAWS - 1 - tail]]
}

fn ratio_of_medians(pairs: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (first, second): (Vec<f64>, Vec<f64>) = pairs.unzip();
    Some(median(first)? / median(second)?)
}

/// The median; `None` without values.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

/// Of sorted values, linear between two of them.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// An interval of fewer pairs would promise what it cannot keep.
pub(super) const LEAST_PAIRS: usize = 5;
const DRAWS: usize = 2000;
/// Any number: the same one each time.
const SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_known_values_is_known() {
        let spread = Spread::of([5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!(spread, Spread { min: 1.0, q1: 2.0, median: 3.0, q3: 4.0, max: 5.0 });
        let spread = Spread::of([10.0, 20.0]).unwrap();
        assert_eq!(spread, Spread { min: 10.0, q1: 12.5, median: 15.0, q3: 17.5, max: 20.0 });
        let one = Spread::of([7.0]).unwrap();
        assert_eq!((one.min, one.q1, one.median, one.q3, one.max), (7.0, 7.0, 7.0, 7.0, 7.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratio_is_that_of_the_medians_and_not_the_median_of_ratios() {
        let ratio = Ratio::of(&[(10.0, 1.0), (20.0, 10.0), (30.0, 20.0)]).unwrap();
        assert_eq!(ratio, Ratio { pairs: 3, ratio: 2.0, interval: None });
    }

    #[test]
    fn ratio_of_pairs_that_agree_has_an_interval_of_no_width() {
        let ratio = Ratio::of(&[(3.0, 2.0); 5]).unwrap();
        assert_eq!(ratio, Ratio { pairs: 5, ratio: 1.5, interval: Some([1.5, 1.5]) });
    }

    #[test]
    fn ratio_of_fewer_than_five_pairs_has_no_interval() {
        assert_eq!(Ratio::of(&[(3.0, 2.0); 4]).unwrap().interval, None);
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&[(1.0, 0.0)]), None);
    }

    #[test]
    fn interval_draws_whole_pairs() {
        // Every pair has the ratio 2 though values differ tenfold: drawn by themselves the sides would be far apart.
        let pairs: Vec<(f64, f64)> = (1..=10).map(|n| (f64::from(n) * 2.0, f64::from(n))).collect();
        assert_eq!(Ratio::of(&pairs).unwrap().interval, Some([2.0, 2.0]));
    }

    #[test]
    fn interval_of_a_known_sample_is_known_and_holds_the_ratio() {
        // The bootstrap distribution of the median of five distinct values is known: a draw of five has its median at the
        // k-th value with these chances (from the binomial distribution).
        //   k: 1       2       3       4       5
        //   P: 0.0579  0.2593  0.3656  0.2593  0.0579
        // So 2.5 % of all draws are below the first value's share of 5.8 %, and the interval is from end to end.
        let pairs = [(90.0, 100.0), (95.0, 100.0), (100.0, 100.0), (105.0, 100.0), (110.0, 100.0)];
        let ratio = Ratio::of(&pairs).unwrap();
        assert_eq!((ratio.ratio, ratio.interval), (1.0, Some([0.9, 1.1])));
        // Of nine values the ends have 0.14 % each and the second ones 2.7 %: the interval leaves the ends out.
        let pairs: Vec<(f64, f64)> = (1..=9).map(|n| (f64::from(n), 1.0)).collect();
        let [low, high] = Ratio::of(&pairs).unwrap().interval.unwrap();
        assert!((2.0..=3.0).contains(&low) && (7.0..=8.0).contains(&high), "{low} to {high}");
    }

    #[test]
    fn interval_is_the_same_each_time() {
        let pairs: Vec<(f64, f64)> =
            (0..20).map(|n| (f64::from(n * 7 % 20 + 50), f64::from(n * 3 % 20 + 40))).collect();
        assert_eq!(Ratio::of(&pairs), Ratio::of(&pairs));
    }
}
