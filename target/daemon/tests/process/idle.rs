//! What an idle target costs: the processor time of its threads, as the kernel accounts for it, not as the clock on the wall
//! shows it.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use tests::live::client::{Client, FIRST, Plan, good, test_unit_ready};
use tests::live::rig::cores;
use tests::live::until;

use crate::place::{Place, Process};

const CONTROLLERS: usize = 4;
/// Rings of each front-end: control, event, four request queues.
const RINGS: [u16; 6] = [0, 1, 2, 3, 4, 5];

/// One poller and four controllers with four request queues and a disk each.
fn four_controllers() -> String {
    let core = cores(1).unwrap()[0];
    let mut text = format!("[metrics]\nlisten = '127.0.0.1:0'\n[reactor]\ncores = [{core}]\nidle = 'adaptive'\n");
    for k in 0..CONTROLLERS {
        write!(
            text,
            "[[bdev]]\nname = 'disk{k}'\nkind = 'malloc'\nsize = '1MiB'\n\
             [[scsi]]\nname = 'vm{k}'\nsocket = '{{dir}}/vm{k}.sock'\nqueues = 4\npollers = [{core}]\n\
             [[scsi.lun]]\nbdev = 'disk{k}'\n"
        )
        .unwrap();
    }
    text
}

/// The time that all threads of the process have run, to the nanosecond.
fn run_time(process: &Process) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let times = threads.map(|thread| {
        let text = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(times.sum())
}

#[test]
fn target_with_four_idle_front_ends_uses_less_than_a_hundredth_of_a_core() {
    let place = Place::new();
    let process = place.serve(&four_controllers());
    let plan = Plan { rings: RINGS.to_vec(), ..Plan::default() };
    let mut clients: Vec<_> =
        (0..CONTROLLERS).map(|k| Client::connect(&place.path(&format!("vm{k}.sock")), &plan)).collect();
    for client in &mut clients {
        client.ready(FIRST, 0);
        for queue in &RINGS[2..] {
            good(client.run(*queue, test_unit_ready(0)));
        }
    }
    until("the poller falls asleep", || process.scrape().sum("ringside_poller_sleeps_total", &[]) > 0.0);

    let (before, start) = (run_time(&process), Instant::now());
    // A span to measure over, not a wait for anything.
    thread::sleep(Duration::from_secs(3));
    let (ran, passed) = (run_time(&process) - before, start.elapsed());
    assert!(ran < passed / 100, "{ran:?} of processor time in {passed:?}");

    for client in &mut clients {
        for queue in RINGS[2..].iter().rev() {
            good(client.run(*queue, test_unit_ready(0)));
        }
    }
    let sources = process.scrape().sum("ringside_poller_sources", &[]);
    assert_eq!(sources, CONTROLLERS as f64, "all of them were there");
}
