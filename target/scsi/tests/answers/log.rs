//! LOG SENSE.

use scsi::{Action, Addressee, Context, LogData};

use super::{data, pointer, run_in, unit};

fn cdb(page: u8, subpage: u8, parameter: u16) -> [u8; 10] {
    let [high, low] = parameter.to_be_bytes();
    [0x4d, 0, page, subpage, 0, high, low, 0x01, 0x00, 0]
}

/// A page of a unit of which these numbers are known.
fn page(log: LogData, page: u8, parameter: u16) -> Vec<u8> {
    let unit = unit();
    let context = Context { log, ..Context::default() };
    let (action, scratch) = run_in(Addressee::Unit(&unit), &cdb(page | 0x40, 0, parameter), &context);
    assert_eq!(action, Action::DataIn);
    scratch.data_in
}

#[test]
fn log_sense_supported_pages_and_subpages() {
    assert_eq!(data(&unit(), &cdb(0x40, 0, 0)), [0x00, 0x00, 0x00, 0x04, 0x00, 0x0d, 0x19, 0x2f]);
    let mut expected = vec![0x40, 0xff, 0x00, 0x0a];
    expected.extend([0x00, 0x00, 0x00, 0xff, 0x0d, 0x00, 0x19, 0x00, 0x2f, 0x00]);
    assert_eq!(data(&unit(), &cdb(0x40, 0xff, 0)), expected);
}

#[test]
fn log_sense_every_listed_page_answers_and_no_other() {
    let unit = unit();
    let listed = data(&unit, &cdb(0, 0, 0))[4..].to_vec();
    for page in 0..0x40 {
        if !listed.contains(&page) {
            assert_eq!(pointer(&unit, &cdb(page, 0, 0)), [0x05, 0x24, 0, 0, 0xcd, 0, 2], "{page:02x}");
            continue;
        }
        let bytes = data(&unit, &cdb(page, 0, 0));
        assert_eq!(bytes[..2], [if page == 0 { 0x00 } else { 0x80 | page }, 0x00]);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len() - 4, "{page:02x}");
        assert_eq!(pointer(&unit, &cdb(page, 1, 0)), [0x05, 0x24, 0, 0, 0xc0, 0, 3], "{page:02x}");
    }
}

#[test]
fn log_sense_0d_temperature_is_known_or_ff() {
    let known = LogData { temperature: Some(41), ..LogData::default() };
    let expected = [0x8d, 0, 0, 12, 0, 0, 0x03, 2, 0, 41, 0, 1, 0x03, 2, 0, 0xff];
    assert_eq!(page(known, 0x0d, 0), expected);
    assert_eq!(page(LogData::default(), 0x0d, 0)[9], 0xff);
}

#[test]
fn log_sense_19_general_statistics_and_performance() {
    let log = LogData {
        reads: 1,
        writes: 2,
        blocks_read: 3,
        blocks_written: 0x0102_0304_0506_0708,
        read_micros: 5,
        write_micros: 6,
        temperature: None,
    };
    let bytes = page(log, 0x19, 0);
    assert_eq!(bytes[..8], [0x99, 0x00, 0x00, 92, 0x00, 0x01, 0x03, 64]);
    let fields: Vec<&[u8]> = bytes[8..72].chunks_exact(8).collect();
    assert_eq!(fields[0], [0, 0, 0, 0, 0, 0, 0, 1]); // read commands
    assert_eq!(fields[1], [0, 0, 0, 0, 0, 0, 0, 2]); // write commands
    assert_eq!(fields[2], [1, 2, 3, 4, 5, 6, 7, 8]); // blocks received
    assert_eq!(fields[3], [0, 0, 0, 0, 0, 0, 0, 3]); // blocks transmitted
    assert_eq!(fields[4], [0, 0, 0, 0, 0, 0, 0, 5]); // read intervals
    assert_eq!(fields[5], [0, 0, 0, 0, 0, 0, 0, 6]); // write intervals
    assert_eq!(fields[6], [0, 0, 0, 0, 0, 0, 0, 3]); // weighted commands
    assert_eq!(fields[7], [0, 0, 0, 0, 0, 0, 0, 11]); // weighted intervals
    assert_eq!(bytes[72..84], [0x00, 0x02, 0x03, 8, 0, 0, 0, 0, 0, 0, 0, 0]); // idle intervals
    assert_eq!(bytes[84..], [0x00, 0x03, 0x03, 8, 0, 0, 0, 6, 0, 0, 0, 1]); // 10^-6 seconds
}

#[test]
fn log_sense_2f_no_informational_exception() {
    let log = LogData { temperature: Some(30), ..LogData::default() };
    assert_eq!(page(log, 0x2f, 0), [0xaf, 0, 0, 8, 0, 0, 0x03, 4, 0x00, 0x00, 30, 0xff]);
}

#[test]
fn log_sense_parameter_pointer_skips_or_is_refused() {
    assert_eq!(page(LogData::default(), 0x0d, 1), [0x8d, 0, 0, 6, 0, 1, 0x03, 2, 0, 0xff]);
    assert_eq!(page(LogData::default(), 0x19, 3)[..6], [0x99, 0, 0, 12, 0, 3]);
    for (page, parameter) in [(0x0d, 2), (0x19, 4), (0x2f, 1), (0x00, 1)] {
        assert_eq!(pointer(&unit(), &cdb(page, 0, parameter)), [0x05, 0x24, 0, 0, 0xc0, 0, 5], "{page:02x}");
    }
}

#[test]
fn log_sense_saving_and_changed_parameters_only_are_refused() {
    assert_eq!(pointer(&unit(), &[0x4d, 0x01]), [0x05, 0x24, 0, 0, 0xc8, 0, 1]); // SP
    assert_eq!(pointer(&unit(), &[0x4d, 0x02]), [0x05, 0x24, 0, 0, 0xc9, 0, 1]); // PPC
}

#[test]
fn log_sense_allocation_length_cuts() {
    assert_eq!(data(&unit(), &[0x4d, 0, 0x0d, 0, 0, 0, 0, 0, 4, 0]), [0x8d, 0, 0, 12]);
}
