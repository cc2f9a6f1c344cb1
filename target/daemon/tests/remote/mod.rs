//! SPDK's own NVMe-oF target, in a process of its own that can be killed: a namespace of another machine, as far as one machine can
//! show it. Over TCP, on an address of the loopback network.
//!
//! The program is `nvmf_tgt` in PATH, or what NVMF_TGT names.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::{env, fs};

use serde_json::{Value, json};
use tests::live::until;

const NQN: &str = "nqn.2026-01.test:ringside";
const PORT: u16 = 4420;

/// The target with one namespace on a file. Killed when dropped.
pub struct Remote {
    program: PathBuf,
    folder: PathBuf,
    address: String,
    child: Child,
}

impl Remote {
    /// Starts it in a folder, with so many bytes; `None`, which is said, if there is no such program. Writes take `write_us`.
    #[must_use]
    pub fn start(test: &str, folder: &Path, bytes: u64, write_us: u32) -> Option<Remote> {
        let Some(program) = program() else {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: no nvmf_tgt in PATH, nor NVMF_TGT");
            return None;
        };
        // One of 2^22 addresses, so that tests of other processes have others.
        let [_, a, b, c] = (std::process::id() << 2 | 1).to_be_bytes();
        let address = format!("127.{a}.{b}.{c}");
        let file = folder.join("namespace");
        File::create(&file).unwrap().set_len(bytes).unwrap();
        fs::write(folder.join("remote.json"), configuration(&file, &address, write_us).to_string()).unwrap();
        let child = spawn(&program, folder);
        let remote = Remote { program, folder: folder.to_owned(), address, child };
        remote.wait_ready();
        Some(remote)
    }

    /// Until it listens.
    fn wait_ready(&self) {
        until("the NVMe-oF target listens", || TcpStream::connect((self.address.as_str(), PORT)).is_ok());
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Another one with the same namespace.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.folder);
        self.wait_ready();
    }

    /// How SPDK's initiator is to use it, and what it is to do when the way to it is lost.
    #[must_use]
    pub fn attach(&self, loss: &Value) -> Value {
        let mut params = json!({
            "name": "Remote", "trtype": "TCP", "adrfam": "IPv4", "traddr": self.address, "trsvcid": PORT.to_string(),
            "subnqn": NQN,
        });
        params.as_object_mut().unwrap().extend(loss.as_object().unwrap().clone());
        method("bdev_nvme_attach_controller", &params)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The test harness shows it if the test fails.
        let said = fs::read_to_string(self.folder.join("remote.log")).unwrap_or_default();
        eprintln!("--- all that nvmf_tgt said:\n{said}");
    }
}

fn program() -> Option<PathBuf> {
    let named = env::var_os("NVMF_TGT").map(PathBuf::from);
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&paths).map(|folder| folder.join("nvmf_tgt"));
    named.into_iter().chain(found).find(|path| path.exists())
}

fn spawn(program: &Path, folder: &Path) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("remote.log")).unwrap();
    let core = format!("[{}]", tests::live::rig::cores(1).unwrap()[0]);
    let mut command = Command::new(program);
    command.args(["-m", &core, "-s", "256", "--no-huge", "-u", "--disable-cpumask-locks"]);
    command.args(["--msg-mempool-size", "8191", "--num-trace-entries", "0", "-r", "remote.sock", "-c", "remote.json"]);
    command.current_dir(folder).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn configuration(file: &Path, address: &str, write_us: u32) -> Value {
    let aio = json!({"name": "Aio", "filename": file, "block_size": 512});
    let slow = write_us > 0;
    let delay = json!({
        "name": "Slow", "base_bdev_name": "Aio", "avg_read_latency": 0, "p99_read_latency": 0,
        "avg_write_latency": write_us, "p99_write_latency": write_us,
    });
    let host = json!({"nqn": NQN, "allow_any_host": true});
    // The same namespace after a restart: an initiator looks at its name.
    let namespace = json!({"bdev_name": if slow { "Slow" } else { "Aio" }, "nsid": 1, "uuid": "7b7c5a0e-3f1c-4e3a-9f57-2f6c1d0f8a11"});
    let listen = json!({"trtype": "TCP", "adrfam": "IPv4", "traddr": address, "trsvcid": PORT.to_string()});
    let bdevs = [method("bdev_aio_create", &aio)].into_iter().chain(slow.then(|| method("bdev_delay_create", &delay)));
    json!({"subsystems": [
        {"subsystem": "iobuf", "config": [
            method("iobuf_set_options", &json!({"small_pool_count": 1024, "large_pool_count": 128})),
        ]},
        {"subsystem": "bdev", "config": bdevs.collect::<Vec<_>>()},
        {"subsystem": "nvmf", "config": [
            method("nvmf_create_transport", &json!({"trtype": "TCP"})),
            method("nvmf_create_subsystem", &host),
            method("nvmf_subsystem_add_ns", &json!({"nqn": NQN, "namespace": namespace})),
            method("nvmf_subsystem_add_listener", &json!({"nqn": NQN, "listen_address": listen})),
        ]},
    ]})
}

fn method(method: &str, params: &Value) -> Value {
    json!({"method": method, "params": params})
}
