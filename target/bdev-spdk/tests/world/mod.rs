//! SPDK with a poller in the test's process, without huge pages, devices or privileges; and a source on that poller that uses
//! a channel as a device would.

#[path = "../../../../bindings/spdk-rs/tests/lab/rpc.rs"]
mod rpc;
pub mod syscalls;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use bdev::{Bdev, Channel, Completion, Io, Op, Status, Submitted, Token};
use bdev_spdk::{BdevEvent, Environment, Spdk, SpdkBdev, SpdkConfig};
use guest_memory::{GuestSlice, Mapping, Pages, RegionConfig, SharedMemory};
use reactor::{IdlePolicy, Reactor, ReactorConfig, Source, SourceHandle, Tsc};
use serde_json::{Value, json};

pub struct World {
    pub spdk: Spdk,
    pub reactor: Reactor,
    pub events: Receiver<(String, BdevEvent)>,
    rpc: PathBuf,
    _folder: tempfile::TempDir,
}

impl World {
    /// One a process: SPDK is started once.
    pub fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let (config, rpc) = (folder.path().join("spdk.json"), folder.path().join("rpc.sock"));
        std::fs::write(&config, configuration(folder.path()).to_string()).unwrap();
        let (told, events) = channel();
        let spdk = SpdkConfig {
            config: Some(config),
            rpc_socket: Some(rpc.clone()),
            memory_mib: Some(600),
            ordinary_memory: true,
            ..SpdkConfig::default()
        };
        let told = std::sync::Mutex::new(told);
        let spdk = Spdk::start(&spdk, Environment::Own, move |name, event| {
            told.lock().unwrap().send((name.to_owned(), event)).unwrap();
        });
        let core = reactor::affinity::allowed().unwrap()[0];
        let reactor = Reactor::start(&ReactorConfig { cores: vec![core], idle: IdlePolicy::Adaptive }).unwrap();
        let spdk = spdk.unwrap();
        spdk.join(&reactor.pollers()[0]).unwrap();
        World { spdk, reactor, events, rpc, _folder: folder }
    }

    pub fn open(&self, bdev: &str) -> SpdkBdev {
        SpdkBdev::open(&self.spdk, "disk", bdev, false).unwrap()
    }

    /// A channel on the poller.
    pub fn user(&self, bdev: &dyn Bdev) -> User {
        let rig = Rig { channel: bdev.open(), done: Vec::with_capacity(1024), allocations: 0 };
        User(self.reactor.pollers()[0].add(rig))
    }

    /// Calls a method of SPDK's, from outside, and returns its result.
    pub fn call(&self, method: &str, params: Value) -> Value {
        rpc::call(&self.rpc, method, &params)["result"].clone()
    }

    /// The same, on a thread of its own.
    pub fn begin_call(&self, method: &'static str, params: Value) -> std::thread::JoinHandle<Value> {
        let rpc = self.rpc.clone();
        std::thread::spawn(move || rpc::call(&rpc, method, &params)["result"].clone())
    }

    /// Keeper0 keeps what it reads from now on. (Not when it is made: SPDK's modules read it to see what it is.)
    pub fn keep(&self) {
        for latency in ["avg_read", "p99_read"] {
            let hour = json!({"delay_bdev_name": "Keeper0", "latency_type": latency, "latency_us": 3_600_000_000u64});
            assert_eq!(self.call("bdev_delay_update_latency", hour), true);
        }
    }

    /// Everything is closed.
    pub fn end(self) {
        self.spdk.leave_pollers();
        drop(self.reactor.shutdown());
        self.spdk.stop();
    }
}

/// Before, that module takes block devices only.
pub fn uring_takes_files() -> bool {
    *bdev_spdk::version() >= *"SPDK v25.09"
}

/// A bdev of each kind that the tests use, and few buffers, so that they run short.
fn configuration(folder: &Path) -> Value {
    let method = |method: &str, params: Value| json!({"method": method, "params": params});
    let malloc = |name: &str, blocks: u64| {
        method("bdev_malloc_create", json!({"name": name, "num_blocks": blocks, "block_size": 512}))
    };
    let file = folder.join("aio");
    let of_uring = folder.join("uring");
    let of_file = if uring_takes_files() { "bdev_uring_create" } else { "bdev_aio_create" };
    for file in [&file, &of_uring] {
        std::fs::File::create(file).unwrap().set_len(1 << 20).unwrap();
    }
    json!({"subsystems": [
        {"subsystem": "iobuf", "config": [
            method("iobuf_set_options", json!({"small_pool_count": 1024, "large_pool_count": 64})),
        ]},
        {"subsystem": "bdev", "config": [
            method("bdev_set_options", json!({"bdev_io_pool_size": 511, "bdev_io_cache_size": 16})),
            malloc("Malloc0", 16384),
            malloc("Gone0", 2048),
            malloc("Base0", 2048),
            malloc("Slow0", 2048),
            malloc("Kept0", 16384),
            malloc("Under0", 16384),
            method("bdev_passthru_create", json!({"name": "Pass0", "base_bdev_name": "Under0"})),
            method("bdev_null_create", json!({"name": "Null0", "num_blocks": 4096, "block_size": 4096})),
            method("bdev_null_create", json!({"name": "Odd0", "num_blocks": 64, "block_size": 1024})),
            method("bdev_error_create", json!({"base_name": "Base0"})),
            method("bdev_aio_create", json!({"name": "Aio0", "filename": file, "block_size": 512})),
            method(of_file, json!({"name": "Uring0", "filename": of_uring, "block_size": 512})),
            method("bdev_error_create", json!({"base_name": "Aio0"})),
            method("bdev_delay_create", json!({
                "name": "Delay0", "base_bdev_name": "Slow0", "avg_read_latency": 10_000, "p99_read_latency": 10_000,
                "avg_write_latency": 0, "p99_write_latency": 0,
            })),
            method("bdev_delay_create", json!({
                "name": "Keeper0", "base_bdev_name": "Kept0", "avg_read_latency": 0, "p99_read_latency": 0,
                "avg_write_latency": 0, "p99_write_latency": 0,
            })),
        ]},
    ]})
}

/// What a device would be: it owns a channel, on the poller.
pub struct Rig {
    pub channel: Channel,
    pub done: Vec<Completion>,
    /// Of polls.
    pub allocations: u64,
}

impl Source for Rig {
    fn poll(&mut self, now: Tsc) -> usize {
        let before = self.done.len();
        let (channel, done) = (&mut self.channel, &mut self.done);
        let measured = allocation_counter::measure(|| {
            channel.flush_submissions();
            channel.poll(now, done);
        });
        self.allocations += measured.count_total;
        self.done.len() - before
    }
}

/// A rig, from the test's thread.
pub struct User(pub SourceHandle<Rig>);

impl User {
    /// Begins a request; its end comes later, if it was not at once.
    pub fn begin(&self, op: Op, lba: u64, blocks: u32, buffers: Vec<GuestSlice>, token: u64) -> Submitted {
        let submit =
            move |rig: &mut Rig| rig.channel.submit(&Io::new(op, lba, blocks, &buffers, Token(token)), Tsc::now());
        self.0.call(submit).unwrap()
    }

    /// The next request that has ended.
    pub fn end(&self) -> Completion {
        loop {
            match self.0.call(|rig| if rig.done.is_empty() { None } else { Some(rig.done.remove(0)) }).unwrap() {
                Some(completion) => return completion,
                None => std::thread::yield_now(),
            }
        }
    }

    /// Has the device give one request up.
    pub fn abort(&self, token: u64) {
        self.0.call(move |rig| rig.channel.abort(Token(token))).unwrap();
    }

    /// The tokens of the next so many requests that end, in order of numbers: each as it should.
    pub fn ends(&self, count: usize, status: Status) -> Vec<u64> {
        let mut tokens = Vec::new();
        for _ in 0..count {
            let completion = self.end();
            assert_eq!(completion.status, status, "{:?}", completion.token);
            tokens.push(completion.token.0);
        }
        tokens.sort_unstable();
        tokens
    }

    pub fn run(&self, op: Op, lba: u64, blocks: u32, buffers: &[GuestSlice]) -> Status {
        match self.begin(op, lba, blocks, buffers.to_vec(), 0x1_0000_0007) {
            Submitted::Done(status) => status,
            Submitted::Pending => {
                let completion = self.end();
                assert_eq!(completion.token, Token(0x1_0000_0007));
                completion.status
            }
        }
    }

    pub fn run_unmap(&self, extents: &[(u64, u32)]) -> Status {
        let extents: Vec<_> = extents.iter().map(|&(lba, blocks)| bdev::Extent { lba, blocks }).collect();
        let submitted = self.0.call(move |rig| rig.channel.submit(&Io::unmap(&extents, Token(3)), Tsc::now())).unwrap();
        match submitted {
            Submitted::Done(status) => status,
            Submitted::Pending => self.end().status,
        }
    }

    /// Closes the channel, as a control thread does.
    pub fn close(self) {
        drop(self.0.remove().unwrap());
    }
}

/// Memory of a guest: mapped as that of a front-end, so that SPDK knows it; or not.
pub struct Guest {
    memory: SharedMemory,
    mapping: Option<Mapping>,
}

impl Guest {
    pub fn known(size: usize) -> Guest {
        let memory = SharedMemory::create("guest", size, Pages::Small).unwrap();
        let config = RegionConfig { guest_addr: 0, size: size as u64, user_addr: 0, mmap_offset: 0 };
        let mapping = Some(Mapping::map(memory.fd(), &config).unwrap());
        Guest { memory, mapping }
    }

    pub fn unknown(size: usize) -> Guest {
        Guest { memory: SharedMemory::create("guest", size, Pages::Small).unwrap(), mapping: None }
    }

    pub fn at(&self, offset: usize, len: usize) -> GuestSlice {
        let whole = self.mapping.as_ref().map_or(self.memory.slice(), Mapping::memory);
        whole.subslice(offset, len).unwrap()
    }

    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.at(offset, len).read(&mut bytes);
        bytes
    }
}

/// Bytes that say where they belong.
pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 512) as u8 ^ (at as u8).wrapping_mul(seed | 1)).collect()
}

pub const WRITE: Op = Op::Write { fua: false };
