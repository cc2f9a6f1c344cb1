//! Limits that a guest does not know of: each refusal reaches it as the answer of the policy, and is counted.

use crate::guest::Lab;

/// Controllers with a slow disk each that take two commands at a time.
fn config() -> String {
    let controller = |number: u8, policy: &str| {
        format!(
            "[[bdev]]\nname = 'disk{number}'\nkind = 'null'\nsize = '16MiB'
             [[bdev]]\nname = 'slow{number}'\nkind = 'delay'\nbase = 'disk{number}'\nlatency_us = 2000000
             [[scsi]]\nname = 'vm{number}'\nsocket = 'vm{number}.sock'
             cmd_per_lun = 2\non_cmd_per_lun = '{policy}'
             [[scsi.lun]]\ntarget = {number}\nbdev = 'slow{number}'\n"
        )
    };
    controller(0, "transport") + &controller(1, "failure")
}

#[test]
fn real_guest_over_cmd_per_lun_gets_an_error_for_every_refusal_that_is_counted() {
    const COMMANDS: u32 = 8;
    let name = "real_guest_over_cmd_per_lun_gets_an_error_for_every_refusal_that_is_counted";
    let Some(lab) = Lab::enter(name) else { return };
    let ringside = lab.serve(&config());
    let guest = lab.guest("vm0", "command-limit.sh").and_socket(&lab.socket("vm1")).cpus(2);
    let console = guest.env("DISKS", "0:0 1:0").env("COMMANDS", COMMANDS).run();

    let metrics = ringside.metrics();
    metrics.assert_no_trouble();
    for (controller, disk, response, reason) in
        [("vm0", "0:0", "busy", "DID_BUS_BUSY"), ("vm1", "1:0", "failure", "DID_ERROR")]
    {
        let told = |what: &str| {
            let start = format!("{what} {disk} ");
            console.iter().filter_map(|line| line.strip_prefix(&start).map(str::to_owned)).collect::<Vec<String>>()
        };
        let outcome: Vec<u32> = told("OUTCOME")[0].split(' ').map(|count| count.parse().unwrap()).collect();
        let [good, refused] = outcome[..] else { panic!("{outcome:?}") };
        assert_eq!(good + refused, COMMANDS, "{controller}");
        assert!(good >= 2 && refused > 0, "{controller}: {good} commands were good, {refused} refused");
        let reasons = told("REASON");
        assert!(reasons.iter().all(|said| said.contains(reason)), "{controller}: {reasons:?}");
        let of = |family, label| metrics.sum(family, &[("controller", controller), label]);
        let counted = of("ringside_scsi_refused_total", ("limit", "cmd_per_lun"));
        assert_eq!((counted, of("ringside_scsi_responses_total", ("response", response))), (refused.into(), counted));
        assert_eq!(of("ringside_scsi_in_flight_high_water", ("target", &disk[..1])), 2.0, "{controller}");
    }
    ringside.stop();
}
