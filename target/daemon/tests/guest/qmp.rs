//! QEMU's machine protocol, as far as tests need it: commands with their answers, and events. What is asked for is a
//! test's business.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::process::until;

/// How long QEMU may take to answer, or a guest to let a device go.
const BOUND: Duration = Duration::from_secs(30);

/// A connection to one QEMU, which takes one at a time.
pub struct Qmp {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    /// Connects, once QEMU listens at `path`.
    pub fn connect(path: &Path) -> Qmp {
        let stream = until("QEMU's machine protocol", BOUND, || UnixStream::connect(path).ok());
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut qmp = Qmp { stream: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.read();
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        qmp.ask("qmp_capabilities", json!({}));
        qmp
    }

    /// A command that must succeed; what it returns.
    pub fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.send(command, arguments);
        loop {
            let mut message = self.read();
            if message.get("event").is_some() {
                self.events.push(message);
                continue;
            }
            let answer = message.get_mut("return").map(Value::take);
            return answer.unwrap_or_else(|| panic!("{command}: {message}"));
        }
    }

    /// A command whose answer may not come any more.
    pub fn send(&mut self, command: &str, arguments: Value) {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{line}").unwrap();
    }

    /// Waits for an event of that name about this device.
    pub fn event(&mut self, name: &str, device: &str) {
        let is_it = |event: &Value| event["event"] == name && event["data"]["device"] == device;
        while !self.events.iter().any(is_it) {
            let message = self.read();
            self.events.push(message);
        }
        self.events.retain(|event| !is_it(event));
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line).expect("an answer or an event within the bound");
        assert!(length > 0, "QEMU has closed its machine protocol");
        serde_json::from_str(&line).unwrap()
    }
}
