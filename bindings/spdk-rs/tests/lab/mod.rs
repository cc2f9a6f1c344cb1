//! SPDK in a test's process: its management runs on a thread of its own, without huge pages, devices or privileges. One serves
//! all tests of a process.

mod rpc;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use spdk_rs::{Command, Env, EnvConfig, Finished, IoChannel, Outcome, Part, Rpc, Subsystems, Tag, Thread, poll_others};

static ENDING: AtomicBool = AtomicBool::new(false);
static MANAGEMENT: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);

/// Before DPDK takes its memory down, when the process ends.
extern "C" fn end() {
    ENDING.store(true, Ordering::Release);
    if let Some(thread) = MANAGEMENT.lock().unwrap().take() {
        let _ = thread.join();
    }
}

type Job = Box<dyn FnOnce(&Thread) + Send>;

pub struct Lab {
    pub env: Env,
    jobs: Mutex<Sender<Job>>,
    rpc: PathBuf,
}

pub fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let rpc = folder.join("rpc.sock");
        let path = rpc.to_str().unwrap().to_owned();
        let (jobs, received) = channel::<Job>();
        let (started, ready) = channel();
        let management = thread::spawn(move || {
            let env = Env::start(&env_config()).unwrap();
            let thread = Thread::create(env, "management").unwrap();
            let subsystems = Subsystems::start(&thread, &[part("lab", &config())]).unwrap();
            let rpc: Rpc = subsystems.serve_rpc(&path).unwrap();
            started.send(env).unwrap();
            while !ENDING.load(Ordering::Acquire) {
                let busy = thread.poll() | poll_others(&thread);
                match received.try_recv() {
                    Ok(job) => job(&thread),
                    Err(_) if !busy => thread::yield_now(),
                    Err(_) => {}
                }
            }
            drop(rpc);
            drop(subsystems);
        });
        *MANAGEMENT.lock().unwrap() = Some(management);
        // SAFETY: a function that may be called when the process ends.
        assert_eq!(unsafe { libc::atexit(end) }, 0);
        Lab { env: ready.recv().unwrap(), jobs: Mutex::new(jobs), rpc }
    })
}

impl Lab {
    /// Runs `work` where SPDK is managed.
    pub fn manage<T: Send + 'static>(&self, work: impl FnOnce(&Thread) -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let job = Box::new(move |thread: &Thread| answer.send(work(thread)).unwrap());
        self.jobs.lock().unwrap().send(job).unwrap();
        answered.recv().unwrap()
    }

    /// Calls a method of SPDK's, from outside.
    pub fn call(&self, method: &str, params: Value) -> Value {
        rpc::call(&self.rpc, method, &params)
    }
}

/// A part of the configuration.
pub fn part(name: &str, json: &Value) -> Part {
    Part { name: name.to_owned(), json: json.to_string().into_bytes() }
}

pub fn env_config() -> EnvConfig {
    EnvConfig { memory_mib: Some(512), no_huge: true, no_pci: true, ..EnvConfig::default() }
}

/// Few buffers and few requests, so that both run short; and a bdev of each kind that the tests use.
pub fn config() -> Value {
    let method = |method: &str, params: Value| json!({"method": method, "params": params});
    let malloc = |name: &str, blocks: u64| {
        method("bdev_malloc_create", json!({"name": name, "num_blocks": blocks, "block_size": 512}))
    };
    json!({"subsystems": [
        {"subsystem": "iobuf", "config": [
            method("iobuf_set_options", json!({"small_pool_count": 1024, "large_pool_count": 64})),
        ]},
        {"subsystem": "bdev", "config": [
            method("bdev_set_options", json!({"bdev_io_pool_size": 511, "bdev_io_cache_size": 16})),
            malloc("Malloc0", 8192),
            malloc("Malloc1", 8192),
            malloc("Gone0", 2048),
            malloc("Base0", 2048),
            method("bdev_null_create", json!({"name": "Null0", "num_blocks": 1 << 20, "block_size": 4096})),
            method("bdev_null_create", json!({"name": "Null1", "num_blocks": 256, "block_size": 4096})),
            method("bdev_error_create", json!({"base_name": "Base0"})),
        ]},
    ]})
}

/// Polls until everything has ended; returns it in the order of its end.
pub fn drain(thread: &Thread, channel: &mut IoChannel) -> Vec<Finished> {
    let mut all = Vec::new();
    while channel.outstanding() > 0 {
        thread.poll();
        channel.finished(|finished| all.push(finished));
    }
    all
}

/// One request with its buffers, to its end.
pub fn run(
    thread: &Thread,
    channel: &mut IoChannel,
    command: Command,
    (lba, blocks): (u64, u64),
    buffers: &mut [&mut [u8]],
    second: &mut [&mut [u8]],
) -> Outcome {
    let list = |buffers: &mut [&mut [u8]]| {
        buffers.iter_mut().map(|buffer| (buffer.as_mut_ptr(), buffer.len())).collect::<Vec<_>>().into_iter()
    };
    // SAFETY: the buffers are borrowed until it has ended.
    let started =
        unsafe { channel.start(command, lba, blocks, Tag { token: 7, note: 9 }, list(buffers), list(second)) };
    started.unwrap();
    let ended = drain(thread, channel);
    assert_eq!((ended.len(), ended[0].tag), (1, Tag { token: 7, note: 9 }));
    ended[0].outcome
}
