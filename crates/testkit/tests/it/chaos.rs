//! The proxy, the processes and the ledger.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use loom_testkit::chaos::{Comparison, Ledger, Process, TcpProxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream, UnixListener},
    time::timeout,
};

/// Answers everything with itself.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn say(socket: &mut TcpStream, text: &str) -> std::io::Result<String> {
    socket.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    socket.read_exact(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("loom-testkit-{}-{name}", std::process::id()))
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_nothing_else() {
    let proxy = TcpProxy::start(echo().await).unwrap();
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut old, "one").await.unwrap(), "one");
    assert_eq!(proxy.open(), 1);
    proxy.cut();
    let error = old.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut new, "two").await.unwrap(), "two");
}

#[tokio::test]
async fn refusing_leaves_the_open_ones_and_keeps_the_port() {
    let proxy = TcpProxy::start(echo().await).unwrap();
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut old, "one").await.unwrap(), "one");
    proxy.refuse().await;
    proxy.refuse().await;
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(say(&mut old, "still").await.unwrap(), "still");
    proxy.resume().unwrap();
    proxy.resume().unwrap();
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut new, "two").await.unwrap(), "two");
}

#[tokio::test]
async fn a_delay_counts_both_ways_and_a_freeze_loses_nothing() {
    let proxy = TcpProxy::start(echo().await).unwrap();
    let mut socket = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut socket, "warm").await.unwrap();
    proxy.delay(Duration::from_millis(40));
    let start = Instant::now();
    say(&mut socket, "slow").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(80));
    proxy.delay(Duration::ZERO);
    proxy.freeze();
    let waiting = timeout(Duration::from_millis(100), say(&mut socket, "kept")).await;
    assert!(waiting.is_err());
    proxy.thaw();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"kept");
}

#[tokio::test]
async fn a_unix_socket_can_be_behind_it_and_ends_are_passed_on() {
    let path = scratch("socket");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await.unwrap();
        all.reverse();
        socket.write_all(&all).await.unwrap();
    });
    let proxy = TcpProxy::start(path.clone()).unwrap();
    let mut socket = TcpStream::connect(proxy.addr()).await.unwrap();
    socket.write_all(b"abc").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut all = String::new();
    socket.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "cba");
    std::fs::remove_file(path).unwrap();
}

fn shell(script: &str, log: &Path) -> Process {
    Process::spawn(Path::new("/bin/sh"), &["-c", script], [("GREETING", "hello")], log).unwrap()
}

fn is_alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_process_ends_as_it_is_told_and_at_the_latest_when_dropped() {
    let log = scratch("log");
    let patience = Duration::from_secs(10);
    let mut process = shell("trap 'exit 7' TERM; echo $GREETING; while :; do read x; done", &log);
    // It says so once its trap is set.
    while process.log() != "hello\n" {
        tokio::task::yield_now().await;
    }
    assert_eq!(process.terminate(patience).await.unwrap().code(), Some(7));
    let mut process = shell("exec sleep 100", &log);
    let status = process.kill9().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let process = shell("exec sleep 100", &log);
    let pid = process.pid();
    assert!(is_alive(pid));
    drop(process);
    assert!(!is_alive(pid));
    let mut process = shell("echo broken; exit 3", &log);
    let error = process.wait_ready("http://127.0.0.1:1/", patience).await.unwrap_err().to_string();
    assert!(error.contains("broken") && error.contains('3'), "{error}");
    std::fs::remove_file(log).unwrap();
}

#[tokio::test]
async fn a_process_is_ready_when_its_url_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/health", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for status in ["503 No", "200 OK"] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 1024]).await.unwrap();
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let log = scratch("ready-log");
    let mut process = shell("exec sleep 100", &log);
    process.wait_ready(&url, Duration::from_secs(10)).await.unwrap();
    std::fs::remove_file(log).unwrap();
}

#[test]
fn a_ledger_tells_what_is_missing_and_what_is_there_twice() {
    let ledger = Ledger::new();
    std::thread::scope(|scope| {
        for from in [0, 10] {
            let ledger = ledger.clone();
            scope.spawn(move || (from..from + 10).for_each(|id| ledger.acknowledge(id)));
        }
    });
    assert_eq!(ledger.len(), 20);
    assert!(ledger.compare(0..20).is_exact());
    let found = (1..20).chain([5, 30, 31, 31]);
    let expected =
        Comparison { missing: vec![0], duplicated: vec![5, 31], unacknowledged: vec![30, 31] };
    assert_eq!(ledger.compare(found), expected);
}
