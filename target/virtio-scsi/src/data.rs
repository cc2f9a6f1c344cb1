//! The two parts of a chain's buffers: a header at the front, data behind it, wherever the driver has put the borders
//! between its descriptors (virtio 1.3 §2.7.4: framing is the driver's business).

use guest_memory::GuestSlice;

/// Copies the first `N` bytes out of the slices. `None` if there are fewer.
#[inline]
pub(crate) fn gather<const N: usize>(slices: &[GuestSlice]) -> Option<[u8; N]> {
    match slices.first()?.read_array::<N>() {
        Some(bytes) => Some(bytes),
        None => gather_split(slices),
    }
}

#[cold]
fn gather_split<const N: usize>(slices: &[GuestSlice]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut at = 0;
    for slice in slices {
        at += slice.read(&mut bytes[at..]);
    }
    (at == N).then_some(bytes)
}

/// Copies the front of the slices to all of `bytes`. The caller has checked the length.
pub(crate) fn gather_into(slices: &[GuestSlice], bytes: &mut [u8]) {
    let mut at = 0;
    for slice in slices {
        at += slice.read(&mut bytes[at..]);
    }
}

/// Writes `bytes` to the front of the slices. What does not fit is left out; the caller has checked the length.
#[inline]
pub(crate) fn scatter(slices: &[GuestSlice], bytes: &[u8]) {
    match slices.first() {
        Some(first) if first.len() >= bytes.len() => {
            first.write(bytes);
        }
        _ => scatter_split(slices, bytes),
    }
}

#[cold]
fn scatter_split(slices: &[GuestSlice], mut bytes: &[u8]) {
    for slice in slices {
        bytes = &bytes[slice.write(bytes)..];
    }
}

/// The data behind a header of `skip` bytes, `want` bytes of it, as slices. `room` is what there is behind the header,
/// at least `want`. Borrows the driver's own slices where they fit, which is nearly always; else cuts them in `scratch`.
#[inline]
pub(crate) fn behind<'a>(
    slices: &'a [GuestSlice],
    skip: usize,
    room: u64,
    want: u64,
    scratch: &'a mut Vec<GuestSlice>,
) -> &'a [GuestSlice] {
    match slices.split_first() {
        Some((header, data)) if header.len() == skip && room == want => data,
        _ => cut(slices, skip, want, scratch),
    }
}

#[cold]
fn cut<'a>(
    slices: &[GuestSlice],
    mut skip: usize,
    mut want: u64,
    scratch: &'a mut Vec<GuestSlice>,
) -> &'a [GuestSlice] {
    scratch.clear();
    for slice in slices {
        let (_, rest) = slice.split_at(skip.min(slice.len()));
        skip -= slice.len() - rest.len();
        let part = want.min(rest.len() as u64);
        if part > 0 {
            scratch.push(rest.split_at(part as usize).0);
            want -= part;
        }
    }
    scratch
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_memory::{Pages, SharedMemory};

    fn cut_up(memory: &SharedMemory, lengths: &[usize]) -> Vec<GuestSlice> {
        let mut rest = memory.slice();
        lengths
            .iter()
            .map(|len| {
                let (slice, after) = rest.split_at(*len);
                rest = after;
                slice
            })
            .collect()
    }

    #[test]
    fn header_and_data_are_found_whatever_the_framing() {
        let memory = SharedMemory::create("framing", 4096, Pages::Small).unwrap();
        let content: Vec<u8> = (0..64).collect();
        memory.slice().write(&content);
        for lengths in [&[8, 24][..], &[32], &[1, 1, 1, 1, 1, 1, 1, 1, 24], &[5, 10, 17], &[8, 3, 21], &[7, 25]] {
            let slices = cut_up(&memory, lengths);
            assert_eq!(gather::<8>(&slices).unwrap(), content[..8]);
            let mut scratch = Vec::new();
            for want in [24, 20, 1, 0] {
                let data = behind(&slices, 8, 24, want, &mut scratch);
                let mut bytes = Vec::new();
                for slice in data {
                    let mut part = vec![0; slice.len()];
                    slice.read(&mut part);
                    bytes.extend(part);
                }
                assert_eq!(bytes, content[8..8 + want as usize], "{lengths:?} {want}");
            }
        }
        assert!(gather::<8>(&cut_up(&memory, &[3, 4])).is_none());
        assert!(gather::<8>(&[]).is_none());
    }

    #[test]
    fn scatter_crosses_slices() {
        let memory = SharedMemory::create("framing", 4096, Pages::Small).unwrap();
        scatter(&cut_up(&memory, &[1, 2, 0, 5]), &[1, 2, 3, 4, 5, 6]);
        assert_eq!(memory.slice().read_array::<8>().unwrap(), [1, 2, 3, 4, 5, 6, 0, 0]);
    }
}
