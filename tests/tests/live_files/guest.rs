//! A guest with one disk, which is a file, on a target as a configuration makes it.

use std::path::Path;

use tests::device::Request;
use tests::live::client::{Client, FIRST, Plan, good};
use tests::live::rig::cores;
use tests::live::running::Running;

pub struct Guest {
    pub running: Running,
    pub client: Client,
}

/// A guest with one disk: `path` as a file device with these keys.
pub fn guest(path: &Path, keys: &str) -> Option<Guest> {
    let pollers = cores(1)?;
    let running = Running::start(|dir| {
        format!(
            "[metrics]\nlisten = '127.0.0.1:0'\n[reactor]\ncores = {pollers:?}\n\
             [[bdev]]\nname = 'disk'\nkind = 'file'\npath = '{}'\n{keys}\n\
             [[scsi]]\nname = 'vm0'\nsocket = '{}/vm0.sock'\npollers = {pollers:?}\n[[scsi.lun]]\nbdev = 'disk'\n",
            path.display(),
            dir.display()
        )
    });
    let mut client = Client::connect(&running.path("vm0.sock"), &Plan { data_len: 64 << 10, ..Plan::default() });
    client.ready(FIRST, 0);
    Some(Guest { running, client })
}

impl Guest {
    /// The sense data of a command that fails.
    pub fn sense(&mut self, request: Request) -> Option<(u8, u8, u8)> {
        let reply = self.client.run(FIRST, request);
        assert_eq!(reply.outcome(), (0, 2), "S_OK and CHECK CONDITION");
        reply.sense()
    }

    /// The data of a command that ends well.
    pub fn good(&mut self, request: Request) -> Vec<u8> {
        good(self.client.run(FIRST, request))
    }

    /// A number of the disk's.
    pub fn metric(&self, name: &str) -> f64 {
        self.running.scrape().sum(name, &[("bdev", "disk")])
    }
}
