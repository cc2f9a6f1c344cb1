//! Expressions that have no answer while all is well, and why that is right. Every other expression of a dashboard must have
//! data under load.

use crate::board::Expression;

/// When an expression has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All the time, under load.
    Always,
    /// When a guest has been in trouble; before that perhaps, on a busy machine.
    AfterTrouble,
    /// When a guest has been in trouble, and not before.
    OnlyAfterTrouble,
    /// Never in this lab.
    Never,
}

/// How the expression begins or what it has in it, when it has data, and the reason.
const EMPTY: [(&str, When, &str); 9] = [
    ("ALERTS{", When::AfterTrouble, "as annotation: no alert fires while all is well"),
    ("resets(ringside_poller_loops_total", When::Never, "as annotation: the target is not restarted"),
    (
        "histogram_quantile(0.99, sum by (instance, controller, le) (rate(ringside_scsi_tmf_",
        When::OnlyAfterTrouble,
        "a quantile of nothing",
    ),
    ("ringside_virtqueue_faults_total", When::OnlyAfterTrouble, "series of a reason begin with the first fault"),
    ("ringside_port_speed_bytes_per_second", When::Never, "loopbacks and switches have no speed"),
    ("ringside_port_mbufs", When::Never, "only DPDK's ports have packet buffers"),
    ("ringside_bdev_spdk_", When::Never, "the lab has no block devices of SPDK's"),
    ("ringside_spdk_guest_memory_bytes", When::Never, "nor SPDK itself"),
    ("ringside_port_extended_total", When::Never, "only DPDK's drivers have counters of their own"),
];

/// When that expression has data. `… or vector(0)` always has.
pub fn when(expression: &Expression) -> When {
    let listed = EMPTY.iter().find(|(part, ..)| expression.text.contains(part));
    listed.filter(|_| !expression.text.contains("vector(0)")).map_or(When::Always, |(_, when, _)| *when)
}

/// Whether the lab has no series like that at all.
pub fn is_never_there(selector: &str) -> bool {
    EMPTY.iter().any(|(part, when, _)| *when == When::Never && selector.contains(part))
}

/// That no entry of the list is left over.
#[test]
fn every_entry_of_the_list_is_about_an_expression() {
    let boards = crate::board::boards();
    for (part, ..) in EMPTY {
        let used = boards.iter().flat_map(|board| &board.expressions).any(|expression| expression.text.contains(part));
        assert!(used, "no expression has {part}");
    }
}
