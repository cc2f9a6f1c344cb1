//! REQUEST SENSE: a pending condition comes back as data.

use scsi::{Action, Addressee, UnitAttention};

use super::{data, run, unit};

#[test]
fn request_sense_nothing_pending_is_no_sense() {
    let sense = data(&unit(), &[0x03, 0, 0, 0, 252, 0]);
    assert_eq!(sense, [0x70, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn request_sense_pending_attention_is_returned_as_data() {
    let unit = unit();
    for (attention, asc, ascq) in [
        (UnitAttention::PowerOn, 0x29, 0x01),
        (UnitAttention::LunReset, 0x29, 0x03),
        (UnitAttention::NexusLoss, 0x29, 0x07),
        (UnitAttention::CapacityChanged, 0x2a, 0x09),
        (UnitAttention::ReportedLunsChanged, 0x3f, 0x0e),
    ] {
        let (action, out) = run(Addressee::Unit(&unit), &[0x03, 0, 0, 0, 252, 0], Some(attention));
        assert_eq!(action, Action::DataIn);
        assert_eq!(out, [0x70, 0, 6, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0]);
    }
}

#[test]
fn request_sense_desc_is_descriptor_format() {
    let unit = unit();
    assert_eq!(data(&unit, &[0x03, 1, 0, 0, 252, 0]), [0x72, 0, 0, 0, 0, 0, 0, 0]);
    let (_, out) = run(Addressee::Unit(&unit), &[0x03, 1, 0, 0, 252, 0], Some(UnitAttention::PowerOn));
    assert_eq!(out, [0x72, 0x06, 0x29, 0x01, 0, 0, 0, 0]);
}

#[test]
fn request_sense_allocation_length_cuts() {
    assert_eq!(data(&unit(), &[0x03, 0, 0, 0, 4, 0]), [0x70, 0, 0, 0]);
    assert_eq!(data(&unit(), &[0x03, 0, 0, 0, 0, 0]), []);
}

#[test]
fn pending_attention_does_not_change_any_other_answer() {
    let unit = unit();
    for bytes in [[0x12, 0, 0, 0, 96, 0], [0xa0, 0, 0, 0, 0, 0], [0x00, 0, 0, 0, 0, 0]] {
        let with = run(Addressee::Unit(&unit), &bytes, Some(UnitAttention::PowerOn));
        assert_eq!(with, run(Addressee::Unit(&unit), &bytes, None), "{bytes:02x?}");
    }
}
