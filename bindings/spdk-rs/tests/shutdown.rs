//! The end of SPDK in a process of its own: with everything closed, it complains of nothing.
#![cfg(feature = "libspdk")]
#![allow(unsafe_code, reason = "requests are given addresses")]

#[allow(dead_code, reason = "the other tests take the rest")]
mod lab;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use lab::{config, env_config, part, run};
use spdk_rs::{Command, Descriptor, Env, IoChannel, Outcome, Subsystems, Thread};

/// What SPDK said from warnings on.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn shutdown_with_everything_closed_is_silent() {
    let said = Said::default();
    let writer = said.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let env = Env::start(&env_config()).unwrap();
    let thread = Thread::create(env, "management").unwrap();
    let subsystems = Subsystems::start(&thread, &[part("lab", &config())]).unwrap();
    let descriptor = Descriptor::open(&thread, "Malloc0", true, |_| ()).unwrap();
    let mut channel = IoChannel::open(&thread, &descriptor).unwrap();
    let mut data = vec![1; 4096];
    assert_eq!(run(&thread, &mut channel, Command::Write, (0, 8), &mut [&mut data], &mut []), Outcome::Good);
    drop(channel);
    drop(descriptor);
    let before = said.0.lock().unwrap().len();
    drop(subsystems);
    drop(thread);
    let said = said.0.lock().unwrap();
    assert_eq!(String::from_utf8_lossy(&said[before..]), "");
}
