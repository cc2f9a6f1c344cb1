//! The announcement of a guest that has come here by migration and cannot announce itself: a reverse ARP request to all, as
//! QEMU's own (RFC 903), so that switches learn where it is now.

use guest_memory::{GuestSlice, Pages, SharedMemory};
use port::Mac;

/// Shortest Ethernet frame without FCS.
const FRAME_LEN: usize = 60;

/// Memory of ours that the frame lies in while the port has it.
pub(crate) struct Announcement {
    memory: Option<SharedMemory>,
}

impl Announcement {
    /// Allocates: for control threads. Without memory there is no announcement.
    pub(crate) fn new() -> Announcement {
        Announcement { memory: SharedMemory::create("ringside-rarp", FRAME_LEN, Pages::Small).ok() }
    }

    /// The frame for this address. The one before must not be in use.
    pub(crate) fn frame(&self, mac: Mac) -> Option<GuestSlice> {
        let slice = self.memory.as_ref()?.slice().subslice(0, FRAME_LEN)?;
        slice.write(&rarp(mac));
        Some(slice)
    }
}

fn rarp(mac: Mac) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&Mac::BROADCAST.0);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&[0x80, 0x35]); // RARP
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 3]); // Ethernet, IPv4, their lengths, request reverse
    frame[22..28].copy_from_slice(&mac.0); // sender
    frame[32..38].copy_from_slice(&mac.0); // target
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcement_is_a_reverse_arp_request_of_the_guest() {
        let announcement = Announcement::new();
        let slice = announcement.frame(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56])).unwrap();
        let mut frame = [0; FRAME_LEN];
        assert_eq!(slice.read(&mut frame), 60);
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3,
            0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0, 0, 0, 0x52, 0x54, 0, 0x12, 0x34, 0x56,
        ];
        assert_eq!(frame[..38], expected);
        assert!(frame[38..].iter().all(|byte| *byte == 0));
    }
}
