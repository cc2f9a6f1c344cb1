//! The bounds of the server, in simulated time, and what makes a target unready. The server as a whole is tested on a process, in
//! `tests/process/http.rs`.

use std::net::Ipv4Addr;

use crossbeam::channel::bounded;
use reactor::Reactor;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;
use vhost_user::connection::Stop;

use super::*;
use crate::assemble;
use crate::bdevs::Bdevs;
use crate::config::{Config, Mode};
use crate::health::tests::{hold, reactor};
use crate::metrics::Sources;
use crate::service::{ScsiService, Service, Socket};

fn answers(health: Health) -> Answers {
    let exporter = Exporter::new(Sources::default());
    Answers { exporter, health: Arc::new(health), access: Arc::default() }
}

/// A connection to a server of nothing, and the task that serves it.
fn connect(pipe_bytes: usize) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (client, stream) = duplex(pipe_bytes);
    let router = answers::router(Arc::new(answers(Health::default())));
    (client, tokio::spawn(serve(stream, router)))
}

/// The next answer: its status line, when all of its body is there.
async fn answer(client: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    loop {
        let head = text.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = head {
            let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if text.len() - end >= length.parse::<usize>().unwrap() {
                return head.lines().next().unwrap().to_owned();
            }
        }
        assert!(client.read_buf(&mut text).await.unwrap() > 0, "{}", String::from_utf8_lossy(&text));
    }
}

#[tokio::test(start_paused = true)]
async fn head_of_a_request_has_bounds_in_bytes_and_lines() {
    for long in ["x: y\r\n".repeat(HEAD_LINES_MAX + 1), format!("x: {}\r\n", "y".repeat(HEAD_BYTES_MAX))] {
        let (mut client, served) = connect(1 << 20);
        client.write_all(format!("GET /metrics HTTP/1.1\r\n{long}\r\n").as_bytes()).await.unwrap();
        let status = answer(&mut client).await;
        assert!(status.contains(" 431 "), "{status}");
        served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_says_nothing_or_half_a_head_is_left() {
    for half in ["", "GET /metrics HTTP/1.1\r\nHost:"] {
        let (mut client, served) = connect(1024);
        let began = Instant::now();
        client.write_all(half.as_bytes()).await.unwrap();
        served.await.unwrap();
        let took = began.elapsed();
        assert!(took >= HEAD_MAX && took < HEAD_MAX + Duration::from_secs(1), "{half:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_read_its_answer_is_left() {
    let (mut client, served) = connect(64);
    let began = Instant::now();
    client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
    served.await.unwrap();
    let took = began.elapsed();
    let most = CONNECTION_MAX + LAST_ANSWER_MAX;
    assert!(took >= CONNECTION_MAX && took < most + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn connection_serves_many_requests_and_ends_with_an_answer() {
    let (mut client, served) = connect(1 << 20);
    let began = Instant::now();
    let mut count = 0;
    while client.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.is_ok() && !served.is_finished() {
        assert!(answer(&mut client).await.contains(" 200 "));
        count += 1;
        sleep(Duration::from_secs(15)).await;
        assert!(count < 100, "it goes on for ever");
    }
    served.await.unwrap();
    assert!(count >= 8 && began.elapsed() >= CONNECTION_MAX, "{count} in {:?}", began.elapsed());
}

#[tokio::test]
async fn connection_beyond_the_bound_is_served_when_another_has_ended() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { listen(&listener, answers(Health::default())).await });
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        idle.push(stream); // and stays
    }
    let mut late = TcpStream::connect(addr).await.unwrap();
    late.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
    // Everything that can happen has happened when the server waits for one of them: they answer, the late one does not.
    let mut first = idle.remove(0);
    first.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(first.read(&mut [0; 1024]).await.unwrap() > 0);
    assert!(late.try_read(&mut [0; 1024]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    drop(first);
    assert!(late.read(&mut [0; 1024]).await.unwrap() > 0);
    server.abort();
}

async fn get(answers: &Arc<Answers>, path: &str) -> (String, String) {
    let (mut client, stream) = duplex(1 << 20);
    let served = tokio::spawn(serve(stream, answers::router(Arc::clone(answers))));
    client.write_all(format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    served.await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn r28_poller_that_is_held_up_stops_no_answer_and_makes_the_target_unready() {
    let reactor = reactor();
    let poller = &reactor.pollers()[0];
    let health = Arc::new(Health::new(reactor.pollers(), &[], &[]));
    let exporter = Exporter::new(Sources { health: Arc::clone(&health), ..Sources::default() });
    let answers = Arc::new(Answers { exporter, health, access: Arc::default() });
    assert_eq!(get(&answers, "/readyz").await, ("200".into(), "ok\n".into()));

    let release = hold(poller);
    (0..3).for_each(|_| answers.health.look());
    let (status, body) = get(&answers, "/readyz").await;
    assert_eq!((status.as_str(), body), ("503", format!("the poller of core {} does not turn\n", poller.core())));
    assert_eq!(get(&answers, "/healthz").await.0, "200", "a restart is not called for");
    let (status, body) = get(&answers, "/metrics").await;
    assert_eq!(status, "200");
    assert!(body.contains(&format!("ringside_poller_turning{{core=\"{}\"}} 0\n", poller.core())), "{body}");

    let loops = poller.stats().loops.value();
    drop(release);
    while poller.stats().loops.value() == loops {
        thread::yield_now();
    }
    answers.health.look();
    assert_eq!(get(&answers, "/readyz").await.0, "200");
}

/// The controller of the embedded configuration, which nobody serves yet.
fn controller(dir: &tempfile::TempDir, reactor: &Reactor) -> Arc<ScsiService> {
    let config = Config::embedded(dir.path().to_str().unwrap()).unwrap();
    let controller =
        assemble::controller(&config.controllers[0], &Bdevs::build(&config, crate::spdk::Spdk::default()).unwrap());
    let (reports, _) = bounded(1);
    Arc::new(Service::new(Arc::new(controller), reactor.pollers().to_vec(), reports))
}

#[tokio::test]
async fn device_that_front_ends_cannot_connect_to_makes_the_target_unready() {
    let (dir, reactor) = (tempfile::tempdir().unwrap(), reactor());
    let service = controller(&dir, &reactor);
    let answers = Arc::new(answers(Health::new(&[], &[Arc::clone(&service)], &[])));
    let deaf = ("503".to_owned(), "vm0: front-ends cannot connect\n".to_owned());
    assert_eq!(get(&answers, "/readyz").await, deaf);

    let socket = Socket::open(&dir.path().join("vm0.sock"), Mode::Server).unwrap();
    let stop = Arc::new(Stop::new().unwrap());
    let serving = thread::spawn({
        let (service, stop) = (Arc::clone(&service), Arc::clone(&stop));
        move || service.run(socket, &stop)
    });
    while !service.stats().is_listening() {
        thread::yield_now();
    }
    assert_eq!(get(&answers, "/readyz").await.0, "200");
    stop.request();
    serving.join().unwrap();
    assert_eq!(get(&answers, "/readyz").await, deaf);
}

#[tokio::test]
async fn reasons_are_told_to_those_who_may_see_the_metrics() {
    let (dir, reactor) = (tempfile::tempdir().unwrap(), reactor());
    let service = controller(&dir, &reactor);
    let token = dir.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let metrics = crate::config::Metrics { token_file: Some(token), ..Default::default() };
    let answers = answers(Health::new(&[], &[service], &[]));
    answers.access.replace(Secrets::read(&metrics).unwrap());
    assert_eq!(get(&Arc::new(answers), "/readyz").await, ("503".into(), "not ready\n".into()));
}
