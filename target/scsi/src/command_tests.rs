//! Tests of CDB fields, byte by byte.

use super::*;
use crate::CDB_LEN;

fn parse(bytes: &[u8]) -> Result<Command, Sense> {
    let mut cdb = [0; CDB_LEN];
    cdb[..bytes.len()].copy_from_slice(bytes);
    Command::parse(&cdb)
}

/// ASC, ASCQ, 00h and the three bytes of the field pointer.
fn refused(bytes: &[u8]) -> [u8; 6] {
    let sense = parse(bytes).unwrap_err();
    assert_eq!(sense.key, 0x05);
    sense.fixed()[12..].try_into().unwrap()
}

fn plain(lba: u64, blocks: u32) -> Transfer {
    Transfer { lba, blocks, fua: false, dpo: false }
}

#[test]
fn read_6_lba_has_21_bits() {
    assert_eq!(parse(&[0x08, 0x1f, 0xfe, 0xdc, 0x07, 0]), Ok(Command::Read(plain(0x1f_fedc, 7))));
    assert_eq!(parse(&[0x08, 0xff, 0xff, 0xff, 0x01, 0]), Ok(Command::Read(plain(0x1f_ffff, 1))));
    assert_eq!(parse(&[0x0a, 0x01, 0x02, 0x03, 0x04, 0]), Ok(Command::Write(plain(0x01_0203, 4))));
}

#[test]
fn read_6_zero_blocks_are_256() {
    assert_eq!(parse(&[0x08, 0, 0, 1, 0, 0]), Ok(Command::Read(plain(1, 256))));
    assert_eq!(parse(&[0x0a, 0, 0, 1, 0, 0]), Ok(Command::Write(plain(1, 256))));
}

#[test]
fn read_write_10_fields_are_big_endian() {
    let read = parse(&[0x28, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0x12, 0x34, 0]);
    assert_eq!(read, Ok(Command::Read(plain(0xdead_beef, 0x1234))));
    let write = parse(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(write, Ok(Command::Write(plain(1, 0))));
}

#[test]
fn read_write_12_fields_are_big_endian() {
    let read = parse(&[0xa8, 0, 0xde, 0xad, 0xbe, 0xef, 0x01, 0x02, 0x03, 0x04, 0, 0]);
    assert_eq!(read, Ok(Command::Read(plain(0xdead_beef, 0x0102_0304))));
    let write = parse(&[0xaa, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]);
    assert_eq!(write, Ok(Command::Write(plain(1, 2))));
}

#[test]
fn read_write_16_fields_are_big_endian() {
    let cdb = [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xa1, 0xa2, 0xa3, 0xa4, 0, 0];
    assert_eq!(parse(&cdb), Ok(Command::Read(plain(0x0102_0304_0506_0708, 0xa1a2_a3a4))));
    let cdb = [0x8a, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0];
    assert_eq!(parse(&cdb), Ok(Command::Write(plain(u64::MAX, 1))));
}

#[test]
fn read_write_fua_and_dpo_are_bits_3_and_4() {
    for opcode in [0x28, 0x2a, 0x88, 0x8a, 0xa8, 0xaa] {
        for (byte, fua, dpo) in [(0x08, true, false), (0x10, false, true), (0x18, true, true)] {
            let (Ok(Command::Read(transfer)) | Ok(Command::Write(transfer))) = parse(&[opcode, byte]) else {
                panic!("{opcode:02x}");
            };
            assert_eq!((transfer.fua, transfer.dpo), (fua, dpo), "{opcode:02x}");
        }
    }
}

#[test]
fn read_write_protect_is_refused_and_pointed_at() {
    for opcode in [0x28, 0x2a, 0x88, 0x8a, 0xa8, 0xaa] {
        for protect in 1..8_u8 {
            assert_eq!(refused(&[opcode, protect << 5]), [0x24, 0x00, 0x00, 0xcf, 0x00, 0x01], "{opcode:02x}");
        }
    }
}

#[test]
fn read_write_group_number_and_reserved_bits_are_ignored() {
    assert_eq!(parse(&[0x28, 0x07, 0, 0, 0, 9, 0xff, 0, 1, 0]), Ok(Command::Read(plain(9, 1))));
    let cdb = [0x88, 0x07, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0];
    assert_eq!(parse(&cdb), Ok(Command::Read(plain(9, 1))));
}

#[test]
fn inquiry_evpd_page_and_allocation_length() {
    let inquiry = |page, allocation_length| Ok(Command::Inquiry { page, allocation_length });
    assert_eq!(parse(&[0x12, 0, 0, 0x01, 0x02, 0]), inquiry(None, 0x0102));
    assert_eq!(parse(&[0x12, 0x01, 0x83, 0, 0xff, 0]), inquiry(Some(0x83), 0xff));
    assert_eq!(parse(&[0x12, 0x01, 0, 0, 4, 0]), inquiry(Some(0), 4));
}

#[test]
fn inquiry_page_without_evpd_or_cmddt_is_refused() {
    assert_eq!(refused(&[0x12, 0x00, 0x80, 0, 36, 0]), [0x24, 0, 0, 0xc0, 0, 2]);
    assert_eq!(refused(&[0x12, 0x02, 0x00, 0, 36, 0]), [0x24, 0, 0, 0xc9, 0, 1]);
}

#[test]
fn report_luns_selection_above_2_is_refused() {
    let luns = |selection| Ok(Command::ReportLuns { selection, allocation_length: 0x0102_0304 });
    let cdb = |select| [0xa0, 0, select, 0, 0, 0, 1, 2, 3, 4, 0, 0];
    assert_eq!(parse(&cdb(0x00)), luns(LunSelection::Units));
    assert_eq!(parse(&cdb(0x01)), luns(LunSelection::WellKnown));
    assert_eq!(parse(&cdb(0x02)), luns(LunSelection::All));
    for select in 0x03..=0xff {
        assert_eq!(refused(&cdb(select)), [0x24, 0, 0, 0xc0, 0, 2], "{select:02x}");
    }
}

#[test]
fn request_sense_desc_and_allocation_length() {
    let sense = |descriptor_format| Ok(Command::RequestSense { descriptor_format, allocation_length: 252 });
    assert_eq!(parse(&[0x03, 0, 0, 0, 252, 0]), sense(false));
    assert_eq!(parse(&[0x03, 1, 0, 0, 252, 0]), sense(true));
}

#[test]
fn read_capacity_obsolete_lba_and_pmi_are_ignored() {
    assert_eq!(parse(&[0x25, 0, 1, 2, 3, 4, 0, 0, 1, 0]), Ok(Command::ReadCapacity10));
    let cdb = [0x9e, 0x10, 1, 2, 3, 4, 5, 6, 7, 8, 0x01, 0x02, 0x03, 0x04, 1, 0];
    assert_eq!(parse(&cdb), Ok(Command::ReadCapacity16 { allocation_length: 0x0102_0304 }));
}

#[test]
fn mode_sense_6_and_10_fields() {
    assert_eq!(
        parse(&[0x1a, 0x18, 0xca, 0x05, 0xfe, 0]),
        Ok(Command::ModeSense {
            ten: false,
            disable_block_descriptors: true,
            long_lba: false, // bit 4 is reserved in the six-byte command
            control: PageControl::Saved,
            page: 0x0a,
            subpage: 0x05,
            allocation_length: 0xfe,
        })
    );
    assert_eq!(
        parse(&[0x5a, 0x10, 0x7f, 0xff, 0, 0, 0, 0x01, 0x02, 0]),
        Ok(Command::ModeSense {
            ten: true,
            disable_block_descriptors: false,
            long_lba: true,
            control: PageControl::Changeable,
            page: 0x3f,
            subpage: 0xff,
            allocation_length: 0x0102,
        })
    );
}

#[test]
fn mode_sense_page_control_is_the_top_two_bits() {
    let control = |byte| match parse(&[0x1a, 0, byte, 0, 0, 0]) {
        Ok(Command::ModeSense { control, .. }) => control,
        other => panic!("{other:?}"),
    };
    let controls = [PageControl::Current, PageControl::Changeable, PageControl::Default, PageControl::Saved];
    assert_eq!([0x08, 0x48, 0x88, 0xc8].map(control), controls);
}

#[test]
fn synchronize_cache_range() {
    let ten = parse(&[0x35, 0x02, 1, 2, 3, 4, 0, 5, 6, 0]);
    assert_eq!(ten, Ok(Command::SynchronizeCache { lba: 0x0102_0304, blocks: 0x0506 }));
    let sixteen = parse(&[0x91, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0]);
    assert_eq!(sixteen, Ok(Command::SynchronizeCache { lba: 0x0102_0304_0506_0708, blocks: 0x090a_0b0c }));
}

#[test]
fn start_stop_unit_flags() {
    let unit = |start, no_flush| Ok(Command::StartStopUnit { start, no_flush });
    assert_eq!(parse(&[0x1b, 0, 0, 0, 0x00, 0]), unit(false, false));
    assert_eq!(parse(&[0x1b, 1, 0, 0, 0x01, 0]), unit(true, false));
    assert_eq!(parse(&[0x1b, 0, 0, 0, 0x04, 0]), unit(false, true));
}

#[test]
fn start_stop_unit_power_condition_and_loej_are_refused() {
    for power_condition in 1..16_u8 {
        let pointer = refused(&[0x1b, 0, 0, 0, power_condition << 4, 0]);
        assert_eq!(pointer, [0x24, 0, 0, 0xcf, 0, 4], "{power_condition:x}");
    }
    assert_eq!(refused(&[0x1b, 0, 0, 0, 0x02, 0]), [0x24, 0, 0, 0xc9, 0, 4]);
}

#[test]
fn report_supported_operation_codes_options() {
    let cdb = |options| [0xa3, 0x0c, options, 0x9e, 0x00, 0x10, 1, 2, 3, 4, 0, 0];
    let parsed = |query, timeouts| {
        Ok(Command::ReportSupportedOperationCodes { query, timeouts, allocation_length: 0x0102_0304 })
    };
    assert_eq!(parse(&cdb(0x00)), parsed(OpcodeQuery::All, false));
    assert_eq!(parse(&cdb(0x81)), parsed(OpcodeQuery::Code(0x9e), true));
    assert_eq!(parse(&cdb(0x02)), parsed(OpcodeQuery::CodeWithAction(0x9e, 0x10), false));
    assert_eq!(parse(&cdb(0x83)), parsed(OpcodeQuery::CodeAndAction(0x9e, 0x10), true));
    for options in 4..8 {
        assert_eq!(refused(&cdb(options)), [0x24, 0, 0, 0xca, 0, 2], "{options}");
    }
}

#[test]
fn verify_and_write_and_verify_fields() {
    let cdb = [0x2f, 0x12, 1, 2, 3, 4, 0xff, 5, 6, 0];
    let transfer = Transfer { dpo: true, ..plain(0x0102_0304, 0x0506) };
    assert_eq!(parse(&cdb), Ok(Command::Verify { transfer, compare: true }));
    let cdb = [0x8e, 0x00, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0];
    let transfer = Transfer { fua: true, ..plain(0x0102_0304_0506_0708, 0x090a_0b0c) };
    assert_eq!(parse(&cdb), Ok(Command::WriteAndVerify { transfer, compare: false }));
    let cdb = [0xaf, 0x00, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
    assert_eq!(parse(&cdb), Ok(Command::Verify { transfer: plain(0x0102_0304, 0x0506_0708), compare: false }));
}

#[test]
fn write_same_fields() {
    let cdb = [0x41, 0x08, 1, 2, 3, 4, 0xff, 5, 6, 0];
    let transfer = plain(0x0102_0304, 0x0506);
    assert_eq!(parse(&cdb), Ok(Command::WriteSame { transfer, unmap: true, no_data_out: false }));
    let cdb = [0x93, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0];
    let transfer = plain(0x0102_0304_0506_0708, 0x090a_0b0c);
    assert_eq!(parse(&cdb), Ok(Command::WriteSame { transfer, unmap: false, no_data_out: true }));
}

#[test]
fn compare_and_write_has_one_byte_of_blocks() {
    let cdb = [0x89, 0x18, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0xff, 9, 0, 0];
    let transfer = Transfer { lba: 0x0102_0304_0506_0708, blocks: 9, fua: true, dpo: true };
    assert_eq!(parse(&cdb), Ok(Command::CompareAndWrite(transfer)));
}

#[test]
fn unmap_and_mode_select_parameter_list_lengths() {
    assert_eq!(parse(&[0x42, 0, 0, 0, 0, 0, 0xff, 1, 2, 0]), Ok(Command::Unmap { list_len: 0x0102 }));
    assert_eq!(parse(&[0x15, 0x10, 0, 0, 9, 0]), Ok(Command::ModeSelect { ten: false, list_len: 9 }));
    assert_eq!(parse(&[0x55, 0x10, 0, 0, 0, 0, 0, 1, 2, 0]), Ok(Command::ModeSelect { ten: true, list_len: 0x0102 }));
    let len = |bytes: &[u8]| parse(bytes).unwrap().parameter_list_len();
    assert_eq!(len(&[0x42, 0, 0, 0, 0, 0, 0, 1, 2, 0]), Some(0x0102));
    assert_eq!(len(&[0x15, 0x10, 0, 0, 9, 0]), Some(9));
    assert_eq!(len(&[0x2a, 0, 0, 0, 0, 0, 0, 1, 2, 0]), None);
    assert_eq!(len(&[0x12, 0, 0, 0, 9, 0]), None);
}

#[test]
fn pre_fetch_and_get_lba_status_fields() {
    let lba = 0x0102_0304_0506_0708;
    assert_eq!(
        parse(&[0x34, 0x02, 1, 2, 3, 4, 0xff, 5, 6, 0]),
        Ok(Command::PreFetch { lba: 0x0102_0304, blocks: 0x0506 })
    );
    let sixteen = [0x90, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0];
    assert_eq!(parse(&sixteen), Ok(Command::PreFetch { lba, blocks: 0x090a_0b0c }));
    let status = [0x9e, 0x12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xff, 0];
    assert_eq!(parse(&status), Ok(Command::GetLbaStatus { lba, allocation_length: 0x090a_0b0c }));
}

#[test]
fn log_sense_fields() {
    assert_eq!(
        parse(&[0x4d, 0, 0x59, 0x01, 0, 2, 3, 4, 5, 0]),
        Ok(Command::LogSense { page: 0x19, subpage: 1, first_parameter: 0x0203, allocation_length: 0x0405 })
    );
}

#[test]
fn r21_data_out_of_commands_about_blocks() {
    let data = |bytes: &[u8]| parse(bytes).unwrap().data(512);
    let ten = |opcode, flags| data(&[opcode, flags, 0, 0, 0, 0, 0, 0, 8, 0]);
    assert_eq!(ten(0x2f, 0x00), DataPhase::None); // VERIFY, BYTCHK 00b
    assert_eq!(ten(0x2f, 0x02), DataPhase::Out(4096));
    assert_eq!(data(&[0x2f, 0x02]), DataPhase::None);
    assert_eq!(ten(0x2e, 0x00), DataPhase::Out(4096)); // WRITE AND VERIFY
    assert_eq!(data(&[0x2e]), DataPhase::None);
    assert_eq!(ten(0x41, 0x00), DataPhase::Out(512)); // WRITE SAME
    let same = |flags| data(&[0x93, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    assert_eq!(same(0x08), DataPhase::Out(512));
    assert_eq!(same(0x09), DataPhase::None); // NDOB
    assert_eq!(data(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]), DataPhase::Out(2 * 4096));
    assert_eq!(data(&[0x89]), DataPhase::None); // COMPARE AND WRITE
    assert_eq!(ten(0x42, 0x00), DataPhase::Out(8)); // UNMAP: the parameter list
    assert_eq!(data(&[0x42]), DataPhase::None);
    assert_eq!(data(&[0x15, 0x10, 0, 0, 24, 0]), DataPhase::Out(24));
    assert_eq!(ten(0x34, 0x00), DataPhase::None); // PRE-FETCH
    assert_eq!(ten(0x4d, 0x00), DataPhase::InUpTo(8)); // LOG SENSE
    assert_eq!(data(&[0x1e, 0, 0, 0, 1, 0]), DataPhase::None); // PREVENT ALLOW
}

#[test]
fn r21_data_is_what_the_cdb_says() {
    let data = |bytes: &[u8], block_size| parse(bytes).unwrap().data(block_size);
    assert_eq!(data(&[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], 512), DataPhase::In(4096));
    assert_eq!(data(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], 4096), DataPhase::Out(32768));
    assert_eq!(data(&[0x08, 0, 0, 0, 0, 0], 512), DataPhase::In(256 * 512));
    let whole = [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
    assert_eq!(data(&whole, 0x00ff_ffff), DataPhase::In(0xffff_ffff * 0x00ff_ffff));
    assert_eq!(data(&[0x12, 0, 0, 0x01, 0x00, 0], 512), DataPhase::InUpTo(256));
    assert_eq!(data(&[0x12, 0, 0, 0, 0, 0], 512), DataPhase::InUpTo(0));
    assert_eq!(data(&[0x25], 512), DataPhase::InUpTo(8));
    assert_eq!(data(&[0x00], 512), DataPhase::None);
    assert_eq!(data(&[0x35], 512), DataPhase::None);
    assert_eq!(data(&[0x1b], 512), DataPhase::None);
}

#[test]
fn r21_data_zero_blocks_move_nothing() {
    for opcode in [0x28, 0x2a, 0x88, 0x8a, 0xa8, 0xaa] {
        assert_eq!(parse(&[opcode]).unwrap().data(512), DataPhase::None, "{opcode:02x}");
    }
}

/// The short way says of every CDB what the table says, or nothing.
#[test]
fn read_write_is_what_the_table_says_or_nothing() {
    let mut fields = 0x0123_4567_89ab_cdef_u64;
    let mut answered = 0;
    for code in 0..=0xff {
        for flags in 0..=0xff {
            for control in [0, 0x04, 0xfb, 0xff] {
                fields = fields.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
                let mut cdb: Cdb = [0; 32];
                cdb[..8].copy_from_slice(&fields.to_be_bytes());
                cdb[8..16].copy_from_slice(&fields.rotate_left(17).to_be_bytes());
                (cdb[0], cdb[1], cdb[9], cdb[15]) = (code, flags, control, control);
                let expected = match Command::parse(&cdb) {
                    Ok(Command::Read(transfer)) if matches!(code, 0x28 | 0x88) => Some(ReadWrite::Read(transfer)),
                    Ok(Command::Write(transfer)) if matches!(code, 0x2a | 0x8a) => Some(ReadWrite::Write(transfer)),
                    _ => None,
                };
                assert_eq!(ReadWrite::parse(&cdb), expected, "{cdb:02x?}");
                answered += u32::from(expected.is_some());
            }
        }
    }
    assert_eq!(answered, 4 * 32 * 2, "without protection and without NACA");
}
