//! What Prometheus watches: a target with everything that it can have without hardware, load on it from `ringside bench`, and a
//! front-end that is led by hand.

use std::path::Path;
use std::process::Command;

use tests::live::client::{Client, FIRST, LOGICAL_UNIT_RESET, Plan, good, read, write};
use tests::live::rig::cores;

use crate::place::{Place, Process as Target};
use crate::process::Process;

/// Commands in flight that the LUNs of `vm1` allow.
const CMD_PER_LUN: usize = 2;
/// The LUN of `vm1` that takes 50 ms for everything.
pub const SLOW: u16 = 1;
/// The one that is a file.
const FILE: u16 = 2;
/// The ring that the hostile driver breaks: the second request ring.
pub const BROKEN: u16 = FIRST + 1;

/// A target under load. Everything in it ends when it is dropped.
pub struct Lab {
    pub target: Target,
    _storage: Process,
    _network: Process,
    place: Place,
}

/// The front-end of `vm1`.
pub struct Guest {
    client: Client,
    lba: u32,
}

/// `vm0` and `n0` are those with load, `vm1` is for the guest, `n1` and the switch have nobody.
fn configuration() -> String {
    let core = cores(1).unwrap()[0];
    format!(
        "[metrics]\nlisten = '127.0.0.1:0'\n\
         [reactor]\ncores = [{core}]\n\
         [[bdev]]\nname = 'disk'\nkind = 'malloc'\nsize = '1MiB'\n\
         [[bdev]]\nname = 'below'\nkind = 'malloc'\nsize = '16MiB'\n\
         [[bdev]]\nname = 'paced'\nkind = 'delay'\nbase = 'below'\nlatency_us = 2000\n\
         [[bdev]]\nname = 'under'\nkind = 'malloc'\nsize = '1MiB'\n\
         [[bdev]]\nname = 'slow'\nkind = 'delay'\nbase = 'under'\nlatency_us = 50000\n\
         [[bdev]]\nname = 'image'\nkind = 'file'\npath = '{{dir}}/image'\nsize = '1MiB'\n\
         [[scsi]]\nname = 'vm0'\nsocket = '{{dir}}/vm0.sock'\n\
         [[scsi.lun]]\nbdev = 'paced'\n\
         [[scsi]]\nname = 'vm1'\nsocket = '{{dir}}/vm1.sock'\nqueues = 2\ncmd_per_lun = {CMD_PER_LUN}\n\
         [[scsi.lun]]\nlun = 0\nbdev = 'disk'\n\
         [[scsi.lun]]\nlun = {SLOW}\nbdev = 'slow'\n\
         [[scsi.lun]]\nlun = {FILE}\nbdev = 'image'\n\
         [[port]]\nname = 'echo'\nkind = 'loopback'\n\
         [[port]]\nname = 'sw'\nkind = 'switch'\n\
         [[net]]\nname = 'n0'\nsocket = '{{dir}}/n0.sock'\nport = 'echo'\n\
         [[net]]\nname = 'n1'\nsocket = '{{dir}}/n1.sock'\nport = 'sw'\n"
    )
}

impl Lab {
    /// Starts the target and load that lasts longer than any test and is light enough for a busy machine.
    pub fn start() -> Lab {
        let place = Place::new();
        let target = place.serve(&configuration());
        let storage = bench(&["scsi", "--rw", "randrw", "--qd", "4"], &place.path("vm0.sock"));
        let network = bench(&["net", "--mode", "loop", "--rate", "1000", "--window", "64"], &place.path("n0.sock"));
        Lab { target, _storage: storage, _network: network, place }
    }

    /// A directory that goes with the lab.
    pub fn dir(&self) -> std::path::PathBuf {
        self.place.path("")
    }

    /// Connects a guest to `vm1`, who has taken the unit attention of each LUN.
    pub fn guest(&self) -> Guest {
        let mut client = Client::connect(&self.place.path("vm1.sock"), &Plan::queues(2));
        [0, SLOW, FILE].into_iter().for_each(|lun| client.ready(FIRST, lun));
        Guest { client, lba: 0 }
    }
}

fn bench(arguments: &[&str], socket: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.arg("bench").args(arguments).args(["--interrupt", "--time", "3600", "--json", "--socket"]).arg(socket);
    Process::start("bench", &mut command)
}

impl Guest {
    /// A little of everything that is no trouble: the slow LUN is left alone.
    pub fn work(&mut self) {
        self.lba = (self.lba + 1) % 1000;
        for lun in [0, FILE] {
            good(self.client.run(FIRST, write(lun, self.lba, &[1; 512])));
            good(self.client.run(FIRST, read(lun, self.lba, 1)));
        }
    }

    /// More commands at once than the slow LUN may have; what is over the limit is refused with S_BUSY (5).
    pub fn burst(&mut self) {
        let queue = self.client.queue(FIRST);
        let tokens: Vec<usize> = (0..8).map(|lba| queue.put(read(SLOW, lba, 1))).collect();
        queue.publish();
        let codes: Vec<u8> = tokens.into_iter().map(|token| queue.wait_for(token).code()).collect();
        assert_eq!(codes.iter().filter(|code| **code == 5).count(), 8 - CMD_PER_LUN, "{codes:?}");
    }

    /// LOGICAL UNIT RESET of LUN 0, and the unit attention that comes of it.
    pub fn reset(&mut self) {
        let token = self.client.send_tmf(LOGICAL_UNIT_RESET, 0, 0);
        assert_eq!(self.client.queue(0).wait_for(token).byte(), 0, "FUNCTION COMPLETE");
        let attention = self.client.run(FIRST, read(0, 0, 1));
        assert_eq!(attention.sense(), Some((6, 0x29, 3)), "the unit attention of a LUN reset");
    }

    /// READ far beyond the end of LUN 0: ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub fn ask_too_far(&mut self) {
        for _ in 0..4 {
            let refused = self.client.run(FIRST, read(0, 1 << 30, 1));
            assert_eq!(refused.sense(), Some((5, 0x21, 0)));
        }
    }

    /// Claims entries of a ring that it does not have: the ring halts.
    pub fn break_ring(&mut self) {
        let queue = self.client.queue(BROKEN);
        queue.raw().set_avail_index(1000);
        queue.kick();
        queue.wait_err();
    }
}
