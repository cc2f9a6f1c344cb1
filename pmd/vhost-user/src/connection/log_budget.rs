//! How many log lines a peer may cause. Time is a parameter; nothing is logged in here.

use std::time::{Duration, Instant};

/// Ten lines in ten seconds, the rest counted.
#[derive(Debug, Default)]
pub(crate) struct LogBudget {
    window_start: Option<Instant>,
    lines: u32,
    dropped: u64,
}

const WINDOW: Duration = Duration::from_secs(10);
const LINES_PER_WINDOW: u32 = 10;

impl LogBudget {
    /// Whether a line may be written now; if so, how many were dropped since the last one.
    pub(crate) fn spend(&mut self, now: Instant) -> Option<u64> {
        let fresh = self.window_start.is_none_or(|start| now.duration_since(start) >= WINDOW);
        if fresh {
            self.window_start = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES_PER_WINDOW {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_spent_drops_lines_and_tells_their_number_in_the_next_window() {
        let start = Instant::now();
        let mut budget = LogBudget::default();
        for _ in 0..10 {
            assert_eq!(budget.spend(start), Some(0));
        }
        assert_eq!(budget.spend(start), None);
        assert_eq!(budget.spend(start + Duration::from_millis(9_999)), None);
        assert_eq!(budget.spend(start + Duration::from_secs(10)), Some(2));
        assert_eq!(budget.spend(start + Duration::from_secs(10)), Some(0));
    }
}
