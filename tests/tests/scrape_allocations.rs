//! A scrape of a thousand logical units allocates within bounds that grow with their number alone, keeps nothing, and is done
//! while the poller stands still. Counted by a global allocator, around the scrapes alone.

use std::fmt::Write;
use std::sync::Arc;

use ringside::health::Health;
use ringside::metrics::{Exporter, Format, Sources};
use tests::live::running::Running;

const UNITS: usize = 1000;
/// Bounds for each logical unit and its block device, in either format. They have 132 series, most of them buckets of four
/// histograms; of the labels of each of the 36 samples that are not buckets the `prometheus` crate wants copies.
const ALLOCATIONS_MAX: u64 = 550;
const BYTES_MAX: u64 = 28 * 1024;

/// A target with so many null disks, 250 a controller.
fn target(units: usize) -> Running {
    Running::start(|dir| {
        let core = tests::live::rig::cores(1).expect("a core")[0];
        let mut text = format!("[metrics]\nlisten = '127.0.0.1:0'\n[reactor]\ncores = [{core}]\n");
        for unit in 0..units {
            if unit % 250 == 0 {
                let (name, dir) = (unit / 250, dir.display());
                writeln!(text, "[[scsi]]\nname = 'vm{name}'\nsocket = '{dir}/vm{name}.sock'").unwrap();
            }
            writeln!(text, "[[scsi.lun]]\nlun = {}\nbdev = 'disk{unit}'", unit % 250).unwrap();
        }
        for unit in 0..units {
            writeln!(text, "[[bdev]]\nname = 'disk{unit}'\nkind = 'null'\nsize = '1MiB'").unwrap();
        }
        text
    })
}

#[test]
fn r28_scrape_of_a_thousand_units_is_bounded_in_allocations_and_keeps_nothing() {
    let mut per_unit = Vec::new();
    for units in [UNITS / 4, UNITS] {
        let running = target(units);
        let target = running.target();
        let exporter = Exporter::new(Sources {
            controllers: target.services().to_vec(),
            bdevs: target.bdevs().clone(),
            health: Arc::new(Health::default()),
            ..Sources::default()
        });
        for format in Format::ALL {
            let series = exporter.text(format).lines().filter(|line| !line.starts_with('#')).count();
            assert!(series > 60 * units, "{series} series");
            let counted = allocation_counter::measure(|| drop(exporter.text(format)));
            let (count, peak) = (counted.count_total / units as u64, counted.bytes_max / units as u64);
            println!("{format:?}, {units} units, {series} series: {count} allocations, {peak} bytes each at the peak");
            assert!(
                count <= ALLOCATIONS_MAX && peak <= BYTES_MAX,
                "{format:?}: {count} allocations, {peak} bytes each"
            );
            assert_eq!((counted.count_current, counted.bytes_current), (0, 0), "{format:?} keeps something");
            per_unit.push(count);
        }
        drop(exporter);
        running.stop();
    }
    let [few, _, many, _] = per_unit[..] else { unreachable!("two targets, two formats") };
    assert!(many <= few + few / 20, "allocations grow faster than the number of units: {few}, {many} each");
}
