//! Bytes that go over a connection, and whether they are the same at its end. Who connects is not known here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// How long nothing at all may come.
const BOUND: Duration = Duration::from_secs(40);
const BLOCK: usize = 1 << 18;

/// So many blocks of 256 KiB, no two alike.
#[derive(Clone, Copy)]
pub struct Data {
    blocks: u32,
}

impl Data {
    /// So many MiB.
    pub fn mib(mib: u32) -> Data {
        Data { blocks: mib * 4 }
    }

    fn blocks(self) -> impl Iterator<Item = Vec<u8>> {
        // xorshift64 (Marsaglia 2003)
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(self.blocks);
        let next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let mut words = std::iter::repeat_with(next);
        (0..self.blocks).map(move |_| words.by_ref().take(BLOCK / 8).flatten().collect())
    }

    /// Its checksum as `md5sum` prints it.
    pub fn md5(self) -> String {
        let mut child = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        self.blocks().for_each(|block| input.write_all(&block).unwrap());
        drop(input);
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
    }

    /// Sends it to whoever connects, and ends the connection.
    pub fn send(self, listener: TcpListener) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut stream = accept(&listener);
            self.blocks().for_each(|block| stream.write_all(&block).expect("the receiver takes all"));
        })
    }

    /// Checks that whoever connects sends it, and nothing else.
    pub fn receive(self, listener: TcpListener) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut stream = accept(&listener);
            let mut found = vec![0; BLOCK];
            for (index, block) in self.blocks().enumerate() {
                stream.read_exact(&mut found).unwrap_or_else(|error| panic!("block {index}: {error}"));
                assert!(found == block, "block {index} of 256 KiB is not what was sent");
            }
            assert_eq!(stream.read(&mut found).unwrap(), 0, "more comes than was sent");
        })
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    set_socket_timeout(listener, Timeout::Recv, Some(BOUND)).unwrap();
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.set_write_timeout(Some(BOUND)).unwrap();
    stream
}
