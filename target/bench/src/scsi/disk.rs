//! SCSI start-up of the logical unit (INQUIRY, TEST UNIT READY, READ CAPACITY), and the range of it that a run uses. No
//! load in here.

use anyhow::{Context, bail, ensure};

use super::Args;
use super::cdb::{self, LbaWidth};
use super::queue::{Queue, Reply};
use super::reply::{Failure, Sense};

/// What a logical unit says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub block_size: u32,
    pub blocks: u64,
}

/// The part of a disk that a run uses, in pieces of one command each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub block_size: u32,
    pub blocks_per_piece: u32,
    pub pieces: u64,
}

impl Disk {
    /// What a run against the null responder has: 1 GiB.
    pub(super) const ASSUMED: Disk = Disk { block_size: 512, blocks: 1 << 21 };

    /// Asks the logical unit. `wait` is called while nothing has come back, and ends the wait by an error.
    ///
    /// # Errors
    /// No target, no logical unit, not a disk, not ready; that of `wait`.
    pub(super) fn find(
        args: &Args,
        queue: &mut Queue,
        mut wait: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Disk> {
        let Args { target, lun, .. } = *args;
        let mut ask = |name: &str, cdb: &[u8], len: u8| {
            ask(queue, cdb, len.into(), &mut wait).with_context(|| format!("target {target}, LUN {lun}: {name}"))
        };
        let inquiry = ask("INQUIRY", &cdb::INQUIRY, cdb::INQUIRY_LEN)?;
        check_type(args, inquiry[0])?;
        ask("TEST UNIT READY", &cdb::TEST_UNIT_READY, 0)?;
        let capacity = ask("READ CAPACITY (16)", &cdb::READ_CAPACITY_16, cdb::CAPACITY_LEN)?;
        Disk::from_capacity(&capacity)
    }

    /// READ CAPACITY (16) data: last LBA, block length (SBC-4 §5.20.2).
    fn from_capacity(data: &[u8]) -> anyhow::Result<Disk> {
        let (last, rest) = data.split_first_chunk::<8>().context("READ CAPACITY (16): no data")?;
        let block_size = u32::from_be_bytes(*rest.first_chunk().context("READ CAPACITY (16): no block length")?);
        ensure!(
            block_size >= 512 && block_size.is_power_of_two(),
            "READ CAPACITY (16): block length {block_size}, must be a power of two from 512 on"
        );
        let blocks = u64::from_be_bytes(*last).saturating_add(1);
        Ok(Disk { block_size, blocks })
    }
}

/// Peripheral qualifier and device type (SPC-5 §6.6.2).
fn check_type(args: &Args, byte: u8) -> anyhow::Result<()> {
    let Args { target, lun, .. } = *args;
    let device_type = byte & 0x1f;
    match byte >> 5 {
        0 => {}
        _ => bail!("--lun {lun}: target {target} has no such logical unit"),
    }
    ensure!(
        device_type == 0,
        "--lun {lun}: the logical unit of target {target} is no disk: peripheral device type {device_type:02X}h"
    );
    Ok(())
}

/// Sends one command, again as long as unit attentions come back: news that a driver takes note of and goes on.
fn ask(
    queue: &mut Queue,
    cdb: &[u8],
    len: usize,
    wait: &mut impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<u8>> {
    let mut attentions = 0;
    loop {
        let Reply { failure, data } = queue.exchange(cdb, len, &mut *wait)?;
        match failure {
            // Parameter data may be shorter than what was asked for.
            None | Some(Failure::Residual) => return Ok(data),
            Some(Failure::CheckCondition(Some(sense)))
                if sense.key == Sense::UNIT_ATTENTION && attentions < ATTENTIONS_MAX =>
            {
                attentions += 1;
            }
            Some(Failure::Response(virtio_scsi::wire::response::BAD_TARGET)) => {
                bail!("the device has no such target (S_BAD_TARGET)")
            }
            Some(failure) => bail!("{failure}"),
        }
    }
}

impl Range {
    /// The range that the arguments ask for.
    ///
    /// # Errors
    /// `--bs` does not fit the block size, or not even one command fits the range.
    pub(super) fn new(args: &Args, disk: Disk) -> anyhow::Result<Range> {
        let Args { bs, verify, .. } = *args;
        let Disk { block_size, blocks } = disk;
        let size = u64::from(block_size);
        ensure!(bs.is_multiple_of(size), "--bs {bs}: must be a multiple of the LUN's block size {block_size}");
        let limit = args.size.unwrap_or(if verify { VERIFIED_DEFAULT } else { u64::MAX });
        let bytes = limit.min(blocks.saturating_mul(size));
        let range = Range { block_size, blocks_per_piece: (bs / size) as u32, pieces: bytes / bs };
        ensure!(range.pieces > 0, "--bs {bs}: does not fit into the {bytes} bytes to be used");
        ensure!(
            !verify || range.pieces <= VERIFIED_MAX,
            "--verify: {} pieces of {bs} bytes, at most {VERIFIED_MAX} can be kept track of; use --size",
            range.pieces
        );
        // Blocks that are looked at belong to one command at a time, so each command needs a piece of its own.
        let commands = u64::from(args.qd) * u64::from(args.queues);
        ensure!(
            !verify || range.pieces >= commands,
            "--verify: {commands} commands in flight need as many pieces of {bs} bytes, the {bytes} bytes to be used \
             have {}",
            range.pieces
        );
        Ok(range)
    }

    /// The commands that reach all of it.
    pub(super) fn width(&self) -> LbaWidth {
        LbaWidth::reaching(self.pieces * u64::from(self.blocks_per_piece), self.blocks_per_piece)
    }

    /// Bytes used.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces * u64::from(self.blocks_per_piece) * u64::from(self.block_size)
    }
}

/// Unit attentions in a row that are taken note of.
const ATTENTIONS_MAX: u32 = 8;
/// Bytes that verification uses unless told otherwise.
const VERIFIED_DEFAULT: u64 = 64 << 20;
/// Pieces whose generations fit into 1 GiB.
const VERIFIED_MAX: u64 = 1 << 27;

#[cfg(test)]
mod tests {
    use super::super::args::tests::parse;
    use super::*;

    fn range(line: &str, disk: Disk) -> Result<Range, String> {
        Range::new(&parse(&format!("--socket s {line}")).unwrap(), disk).map_err(|error| error.to_string())
    }

    const GIB: Disk = Disk { block_size: 512, blocks: 1 << 21 };

    #[test]
    fn capacity_data_gives_block_size_and_blocks() {
        let mut data = [0; 32];
        data[..12].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0xff, 0, 0, 0x10, 0]);
        let disk = Disk::from_capacity(&data).unwrap();
        assert_eq!(disk, Disk { block_size: 4096, blocks: 0x1_0000_0100 });
        data[8..12].copy_from_slice(&[0, 0, 2, 8]);
        let error = Disk::from_capacity(&data).unwrap_err().to_string();
        assert_eq!(error, "READ CAPACITY (16): block length 520, must be a power of two from 512 on");
    }

    #[test]
    fn range_is_the_lun_or_size_or_64_mib_when_verifying() {
        assert_eq!(range("", GIB).unwrap().pieces, 1 << 18);
        assert_eq!(
            range("--size 1m --bs 512", GIB).unwrap(),
            Range { block_size: 512, blocks_per_piece: 1, pieces: 2048 }
        );
        assert_eq!(range("--verify", GIB).unwrap().bytes(), 64 << 20);
        assert_eq!(range("--verify", Disk { blocks: 4096, ..GIB }).unwrap().bytes(), 2 << 20);
        assert_eq!(range("--bs 3k --size 10000", GIB).unwrap().pieces, 3);
    }

    #[test]
    fn range_that_cannot_be_names_values_and_bound() {
        let large = Disk { block_size: 4096, blocks: 1 << 20 };
        assert_eq!(range("--bs 512", large).unwrap_err(), "--bs 512: must be a multiple of the LUN's block size 4096");
        assert_eq!(range("--size 4095", GIB).unwrap_err(), "--bs 4096: does not fit into the 4095 bytes to be used");
        let huge = Disk { blocks: 1 << 40, ..GIB };
        let error = range("--verify --size 1t --bs 512", huge).unwrap_err();
        assert!(error.contains("2147483648 pieces of 512 bytes, at most 134217728"), "{error}");
        let error = range("--verify --size 64k --queues 2", GIB).unwrap_err();
        assert!(error.starts_with("--verify: 64 commands in flight need as many pieces of 4096 bytes"), "{error}");
    }

    #[test]
    fn range_beyond_32_bits_needs_the_long_commands() {
        let huge = Disk { block_size: 512, blocks: (1 << 32) + 8 };
        assert_eq!(range("", huge).unwrap().width(), LbaWidth::Bits64);
        assert_eq!(range("--size 1t", huge).unwrap().width(), LbaWidth::Bits32);
    }

    #[test]
    fn inquiry_of_a_lun_that_is_not_there_or_no_disk_is_an_error() {
        let args = parse("--socket s --lun 5").unwrap();
        check_type(&args, 0).unwrap();
        let absent = check_type(&args, 0x7f).unwrap_err().to_string();
        assert_eq!(absent, "--lun 5: target 0 has no such logical unit");
        let tape = check_type(&args, 0x01).unwrap_err().to_string();
        assert_eq!(tape, "--lun 5: the logical unit of target 0 is no disk: peripheral device type 01h");
    }
}
