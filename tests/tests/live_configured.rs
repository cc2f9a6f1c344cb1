//! The target as a configuration text makes it: what the keys say is what a front-end meets. What each key may hold is
//! tested beside the configuration.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use tests::device::Reply;
use tests::live::client::{Client, FIRST, Plan, good, read, write};
use tests::live::rig::cores;
use tests::live::running::Running;
use tests::live::wait_readable;
use vhost_user::frontend::Frontend;

/// Two pollers where there are two cores, a disk and a slow disk; more keys of the controller.
fn text(dir: &Path, pollers: &[usize], more: &str) -> String {
    let dir = dir.display();
    format!(
        "[metrics]\nlisten = '127.0.0.1:0'\n\
         [reactor]\ncores = {pollers:?}\n\
         [[bdev]]\nname = 'disk0'\nkind = 'malloc'\nsize = '1MiB'\n\
         [[bdev]]\nname = 'below'\nkind = 'malloc'\nsize = '1MiB'\nblock_size = 4096\n\
         [[bdev]]\nname = 'slow'\nkind = 'delay'\nbase = 'below'\nlatency_us = 2000\n\
         [[scsi]]\nname = 'vm0'\nsocket = '{dir}/vm0.sock'\nqueues = 3\nqueue_size_max = 128\npollers = {pollers:?}\n{more}\
         [[scsi.lun]]\nlun = 0\nbdev = 'disk0'\n\
         [[scsi.lun]]\nlun = 3\nbdev = 'slow'\n"
    )
}

#[test]
fn r05_configured_limits_stand_in_the_configuration_space_and_are_enforced() {
    let Some(pollers) = cores(2).or_else(|| cores(1)) else { return };
    let limits = "cmd_per_lun = 3\nmax_sectors = 16\non_cmd_per_lun = 'scsi'\non_max_sectors = 'scsi'\n";
    let running = Running::start(|dir| text(dir, &pollers, limits));
    let mut client = Client::connect(&running.path("vm0.sock"), &Plan { data_len: 16 << 10, ..Plan::queues(3) });
    assert_eq!(client.frontend.queue_num().unwrap(), 5);
    #[rustfmt::skip]
    assert_eq!(client.frontend.config(0, 16).unwrap(), [3, 0, 0, 0,  126, 0, 0, 0,  16, 0, 0, 0,  3, 0, 0, 0]);
    client.ready(FIRST, 0);
    client.ready(FIRST, 3);
    good(client.run(FIRST, write(0, 0, &[1; 16 * 512])));
    let refused = client.run(FIRST, read(0, 0, 17));
    assert_eq!(refused.sense(), Some((5, 0x24, 0)), "INVALID FIELD IN CDB");

    // Five commands at once: they are fetched together, so that none has ended when the last is looked at.
    let queue = client.queue(FIRST + 1);
    (0..5).for_each(|lba| _ = queue.put(read(3, lba, 1).data_in(4096)));
    queue.publish();
    let replies: Vec<Reply> = (0..5).map(|_| queue.wait()).collect();
    let outcomes = |wanted| replies.iter().filter(|reply| reply.outcome() == wanted).count();
    assert_eq!((outcomes((0, 0)), outcomes((0, 0x28))), (3, 2), "GOOD and TASK SET FULL");

    let metrics = running.scrape();
    let unit = [("controller", "vm0"), ("lun", "3"), ("limit", "cmd_per_lun")];
    assert_eq!(metrics.sum("ringside_scsi_refused_total", &unit), 2.0);
    assert_eq!(metrics.sum("ringside_scsi_limit", &[("limit", "max_sectors")]), 16.0);
    assert_eq!(metrics.sum("ringside_bdev_size_bytes", &[("bdev", "slow")]), f64::from(1 << 20));
    drop(client);
    let socket = running.path("vm0.sock");
    running.stop();
    assert!(!socket.exists());
}

#[test]
fn client_mode_of_the_configuration_connects_to_the_front_end_again_and_again() {
    let Some(pollers) = cores(1) else { return };
    let running = Running::start(|dir| text(dir, &pollers, "mode = 'client'\n"));
    for round in 0..2u8 {
        let path = running.path("vm0.sock");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(wait_readable(&listener), "the target connects");
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        fs::remove_file(path).unwrap();
        let mut client = Client::attach(Frontend::from_stream(stream), &Plan::default());
        client.ready(FIRST, 0);
        good(client.run(FIRST, write(0, 0, &[round; 512])));
    }
    assert_eq!(running.target().services()[0].stats().turned_away.load(std::sync::atomic::Ordering::Relaxed), 0);
    running.stop();
}
