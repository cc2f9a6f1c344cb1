//! Who is told of the memory of front-ends that comes and goes: whatever has to make it known to devices. Told on the control
//! thread that maps and unmaps, so that it may take its time.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::GuestSlice;

/// Is told of every [`Mapping`](crate::Mapping) of the process.
pub trait MappingObserver: Send + Sync {
    /// This memory was mapped, in whole pages, and will be used from now on.
    fn mapped(&self, memory: GuestSlice);

    /// This memory is not used any more, and will be unmapped when this returns.
    fn unmapping(&self, memory: GuestSlice);
}

static OBSERVERS: RwLock<Vec<Weak<dyn MappingObserver>>> = RwLock::new(Vec::new());

/// From now on `observer` is told of mappings, for as long as somebody else holds it. Mappings of before are not told of: so it
/// has to be there before the first front-end.
pub fn observe_mappings(observer: &Arc<impl MappingObserver + 'static>) {
    let observer: Weak<dyn MappingObserver> = Arc::downgrade(observer) as _;
    let mut observers = OBSERVERS.write().unwrap_or_else(PoisonError::into_inner);
    observers.retain(|other| other.strong_count() > 0);
    observers.push(observer);
}

pub(crate) fn tell(tell: impl Fn(&dyn MappingObserver)) {
    let observers: Vec<_> = {
        let list = OBSERVERS.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().filter_map(Weak::upgrade).collect()
    };
    observers.iter().for_each(|observer| tell(&**observer));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{Mapping, Pages, RegionConfig, SharedMemory};

    /// What was told of memory of its one size, which no other test has.
    #[derive(Default)]
    struct Notes(Mutex<Vec<(&'static str, usize)>>);

    const SIZE: usize = 13 << 12;

    impl Notes {
        fn note(&self, what: &'static str, memory: GuestSlice) {
            if memory.len() == SIZE {
                self.0.lock().unwrap().push((what, memory.as_ptr().addr()));
            }
        }
    }

    impl MappingObserver for Notes {
        fn mapped(&self, memory: GuestSlice) {
            assert!(memory.as_ptr().addr().is_multiple_of(4096));
            memory.write(b"x"); // it is there
            self.note("mapped", memory);
        }

        fn unmapping(&self, memory: GuestSlice) {
            memory.write(b"y"); // it is still there
            self.note("unmapping", memory);
        }
    }

    #[test]
    fn observer_is_told_of_mappings_for_as_long_as_it_lives() {
        let memory = SharedMemory::create("observed", SIZE, Pages::Small).unwrap();
        let config = RegionConfig { guest_addr: 0, size: SIZE as u64, user_addr: 0, mmap_offset: 0 };
        let notes = Arc::new(Notes::default());
        observe_mappings(&notes);
        let mapping = Mapping::map(memory.fd(), &config).unwrap();
        let at = mapping.memory().as_ptr().addr();
        assert_eq!(*notes.0.lock().unwrap(), [("mapped", at)]);
        drop(mapping);
        assert_eq!(*notes.0.lock().unwrap(), [("mapped", at), ("unmapping", at)]);
        let gone = Arc::downgrade(&notes);
        drop(notes);
        assert_eq!(gone.strong_count(), 0);
        drop(Mapping::map(memory.fd(), &config).unwrap());
    }
}
