//! Parts of scatter lists: cutting them by bytes, and comparing them. Moves no data but into its own two pages.

use guest_memory::GuestSlice;

/// The pieces of `buffers` that hold the `len` bytes from `skip` on; fewer if the list is shorter.
pub fn part(buffers: &[GuestSlice], skip: u64, len: u64) -> impl Iterator<Item = GuestSlice> + '_ {
    let (mut skip, mut left) = (skip, len);
    buffers.iter().filter_map(move |buffer| {
        let size = buffer.len() as u64;
        let from = skip.min(size);
        skip -= from;
        let take = left.min(size - from);
        left -= take;
        buffer.subslice(from as usize, take as usize).filter(|piece| !piece.is_empty())
    })
}

/// Offset of the first byte in which `medium` differs from the pieces put together; `None` if it does not, as far as
/// both go. Each byte is read once on either side.
pub fn first_difference(medium: GuestSlice, pieces: impl Iterator<Item = GuestSlice>) -> Option<u32> {
    let (mut mine, mut theirs) = ([0; PAGE], [0; PAGE]);
    let mut at = 0;
    for piece in pieces {
        let mut done = 0;
        while done < piece.len() {
            let len = PAGE.min(piece.len() - done);
            let (here, there) = (&mut mine[..len], &mut theirs[..len]);
            medium.subslice(at, len)?.read(here);
            piece.subslice(done, len)?.read(there);
            if here != there {
                let within = here.iter().zip(there.iter()).position(|(here, there)| here != there).unwrap_or(0);
                return Some(u32::try_from(at + within).unwrap_or(u32::MAX));
            }
            done += len;
            at += len;
        }
    }
    None
}

const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use guest_memory::{Pages, SharedMemory};

    use super::*;

    fn memory() -> SharedMemory {
        let memory = SharedMemory::create("scatter", 3 * PAGE, Pages::Small).unwrap();
        let bytes: Vec<u8> = (0..3 * PAGE).map(|at| (at % 251) as u8).collect();
        memory.slice().write(&bytes);
        memory
    }

    #[test]
    fn part_of_a_list_is_cut_at_both_ends() {
        let memory = memory();
        let list =
            [(0, 100), (200, 0), (300, 50), (1000, 500)].map(|(at, len)| memory.slice().subslice(at, len).unwrap());
        let start = memory.slice().as_ptr() as usize;
        let cut = |skip, len| -> Vec<(usize, usize)> {
            part(&list, skip, len).map(|piece| (piece.as_ptr() as usize - start, piece.len())).collect()
        };
        assert_eq!(cut(0, 650), [(0, 100), (300, 50), (1000, 500)]);
        assert_eq!(cut(99, 52), [(99, 1), (300, 50), (1000, 1)]);
        assert_eq!(cut(100, 50), [(300, 50)]);
        assert_eq!(cut(640, 100), [(1490, 10)]);
        assert_eq!(cut(650, 1), []);
        assert_eq!(cut(3, 0), []);
    }

    #[test]
    fn difference_is_found_at_its_first_byte_over_pieces_and_pages() {
        let (medium, data) = (memory(), memory());
        let length = 3 * PAGE;
        let pieces = |cut: usize| {
            let (front, back) = data.slice().split_at(cut);
            [front, back].into_iter()
        };
        for cut in [0, 1, 4095, 4096, 5000, length] {
            assert_eq!(first_difference(medium.slice(), pieces(cut)), None);
        }
        for at in [0, 1, 4095, 4096, 8000, length - 1] {
            let byte = data.slice().subslice(at, 1).unwrap();
            let before = byte.read_array::<1>().unwrap()[0];
            byte.fill(before ^ 0x80);
            for cut in [0, 1, 4096, 5000] {
                assert_eq!(first_difference(medium.slice(), pieces(cut)), Some(at as u32));
            }
            byte.fill(before);
        }
    }
}
