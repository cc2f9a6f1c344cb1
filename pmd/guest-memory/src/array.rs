//! Arrays of scalars in shared memory: what ring fields are read and written through. Knows no ring layout.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::GuestSlice;

/// A little-endian integer that can be loaded and stored atomically in shared memory: `u16`, `u32` or `u64`.
pub trait Scalar: Copy + private::Sealed {
    /// Loads the value at `at`.
    ///
    /// # Safety
    /// `at` is aligned for the type and mapped.
    #[doc(hidden)]
    unsafe fn load(at: *mut Self, order: Ordering) -> Self;

    /// Stores `value` at `at`.
    ///
    /// # Safety
    /// `at` is aligned for the type and mapped.
    #[doc(hidden)]
    unsafe fn store(at: *mut Self, value: Self, order: Ordering);
}

mod private {
    pub trait Sealed {}
}

macro_rules! scalar {
    ($integer:ty, $atomic:ty) => {
        impl private::Sealed for $integer {}
        impl Scalar for $integer {
            #[inline(always)]
            unsafe fn load(at: *mut Self, order: Ordering) -> Self {
                // SAFETY: aligned and mapped, says the caller; every access of ours is atomic.
                unsafe { <$atomic>::from_ptr(at) }.load(order)
            }

            #[inline(always)]
            unsafe fn store(at: *mut Self, value: Self, order: Ordering) {
                // SAFETY: as in `load`.
                unsafe { <$atomic>::from_ptr(at) }.store(value, order);
            }
        }
    };
}

scalar!(u16, AtomicU16);
scalar!(u32, AtomicU32);
scalar!(u64, AtomicU64);

/// An array of little-endian integers in shared memory, each accessed atomically.
#[derive(Clone, Copy, Debug)]
pub struct GuestArray<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: an address and a length; every access is atomic.
unsafe impl<T: Scalar> Send for GuestArray<T> {}
// SAFETY: as above.
unsafe impl<T: Scalar> Sync for GuestArray<T> {}

impl<T: Scalar> GuestArray<T> {
    /// The slice as an array of `T`; `None` if its start is not aligned for `T`. Bytes after the last whole element
    /// are left out.
    #[must_use]
    pub fn new(slice: GuestSlice) -> Option<GuestArray<T>> {
        let start = slice.as_ptr().cast::<T>();
        start.is_aligned().then_some(GuestArray { start, len: slice.len() / size_of::<T>() })
    }

    /// Number of elements.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element in it.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Loads element `index`.
    ///
    /// # Panics
    /// If `index` is outside.
    #[must_use]
    #[inline(always)]
    pub fn load(&self, index: usize, order: Ordering) -> T {
        assert!(index < self.len);
        // SAFETY: inside and aligned (checked at construction); mapped, see the crate's documentation.
        unsafe { T::load(self.start.add(index), order) }
    }

    /// Stores element `index`.
    ///
    /// # Panics
    /// If `index` is outside.
    #[inline(always)]
    pub fn store(&self, index: usize, value: T, order: Ordering) {
        assert!(index < self.len);
        // SAFETY: as in `load`.
        unsafe { T::store(self.start.add(index), value, order) }
    }

    /// The `N` elements from `from` on; `None` if the array ends before.
    #[must_use]
    #[inline(always)]
    pub fn chunk<const N: usize>(&self, from: usize) -> Option<GuestChunk<T, N>> {
        let end = from.checked_add(N)?;
        // An address is made of what is inside only.
        (end <= self.len).then(|| GuestChunk { start: self.start.wrapping_add(from) })
    }

    /// Asks the processor to bring element `index` near, to be read. An index outside is ignored.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        if index < self.len {
            // SAFETY: inside; a prefetch changes nothing.
            unsafe { GuestSlice::from_raw(self.start.add(index).cast::<u8>(), size_of::<T>()) }.prefetch_read();
        }
    }

    /// As [`GuestArray::prefetch`], to be written.
    #[inline(always)]
    pub fn prefetch_write(&self, index: usize) {
        if index < self.len {
            // SAFETY: as above.
            unsafe { GuestSlice::from_raw(self.start.add(index).cast::<u8>(), size_of::<T>()) }.prefetch_write();
        }
    }
}

/// `N` elements of an array, which are there: an index that the compiler knows needs no check.
#[derive(Clone, Copy, Debug)]
pub struct GuestChunk<T, const N: usize> {
    start: *mut T,
}

impl<T: Scalar, const N: usize> GuestChunk<T, N> {
    /// Loads element `index`.
    ///
    /// # Panics
    /// If `index` is not below `N`.
    #[must_use]
    #[inline(always)]
    pub fn load(&self, index: usize, order: Ordering) -> T {
        assert!(index < N);
        // SAFETY: inside (checked at construction) and aligned; mapped, see the crate's documentation.
        unsafe { T::load(self.start.add(index), order) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pages, SharedMemory};

    #[test]
    fn array_loads_little_endian_and_refuses_misalignment() {
        let memory = SharedMemory::create("array", 4096, Pages::Small).unwrap();
        memory.slice().write(&[1, 0, 2, 0, 3, 0, 4, 0]);
        let array = GuestArray::<u16>::new(memory.slice().subslice(0, 9).unwrap()).unwrap();
        assert_eq!(array.len(), 4);
        assert_eq!(array.load(2, Ordering::Acquire), 3);
        array.store(3, 0x0102, Ordering::Release);
        assert_eq!(memory.slice().read_array::<8>().unwrap(), [1, 0, 2, 0, 3, 0, 2, 1]);
        assert!(GuestArray::<u32>::new(memory.slice().subslice(2, 8).unwrap()).is_none());
    }

    #[test]
    fn chunk_lies_inside_of_its_array() {
        let memory = SharedMemory::create("array", 4096, Pages::Small).unwrap();
        memory.slice().write(&[1, 0, 2, 0, 3, 0, 4, 0]);
        let array = GuestArray::<u16>::new(memory.slice().subslice(0, 8).unwrap()).unwrap();
        let chunk = array.chunk::<2>(2).unwrap();
        assert_eq!([0, 1].map(|index| chunk.load(index, Ordering::Relaxed)), [3, 4]);
        assert!(
            array.chunk::<2>(3).is_none() && array.chunk::<5>(0).is_none() && array.chunk::<2>(usize::MAX).is_none()
        );
    }

    #[test]
    #[should_panic(expected = "index < self.len")]
    fn array_load_outside_panics() {
        let memory = SharedMemory::create("array", 4096, Pages::Small).unwrap();
        let array = GuestArray::<u64>::new(memory.slice().subslice(0, 16).unwrap()).unwrap();
        let _ = array.load(2, Ordering::Relaxed);
    }
}
