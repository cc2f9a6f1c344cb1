//! One call of a method of SPDK's over its RPC socket. The tests of other crates that have SPDK's server running use this file, too.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

/// What SPDK answers: `result` is in it, or `error`.
pub fn call(socket: &Path, method: &str, params: &Value) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    stream.write_all(request.to_string().as_bytes()).unwrap();
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "SPDK hung up after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..len]);
        if let Ok(answer) = serde_json::from_slice(&text) {
            return answer;
        }
    }
}
