//! What a service manager hears of a server that it started: a real process, and a real socket that listens.

use std::{
    net::TcpListener as StdListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram as StdDatagram},
    path::Path,
    process::Stdio,
    time::Duration,
};

use loom_core::{Clock, id::new_uuid};
use loom_testkit::chaos::Process;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixDatagram},
    process::{Child, Command},
    time::timeout,
};

use crate::cli::{BINARY, empty_database};

const PATIENCE: Duration = Duration::from_secs(60);

/// Listens at a path, as systemd does.
fn at_path(dir: &Path) -> (UnixDatagram, String) {
    let path = dir.join("notify");
    (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned())
}

fn spawn(socket: &str, database: &str, dir: &Path, watchdog: &str) -> Process {
    let env = [
        ("DATABASE_URL", database),
        ("LOOM_SERVER_DATA_DIR", dir.to_str().unwrap()),
        ("LOOM_SERVER_HOST", "127.0.0.1"),
        ("LOOM_SERVER_PORT", "0"),
        ("LOOM_SERVER_LOG_FORMAT", "json"),
        ("RUST_LOG", ""),
        ("NOTIFY_SOCKET", socket),
        ("WATCHDOG_USEC", watchdog),
    ];
    Process::spawn(Path::new(BINARY), &["serve"], env, &dir.join("log")).unwrap()
}

/// What is said until one of the lines is `wanted`, with that line.
async fn heard(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut buffer = [0; 4096];
    while !lines.iter().any(|line| line == wanted) {
        let received = timeout(PATIENCE, socket.recv(&mut buffer)).await;
        let len = received.unwrap_or_else(|_| panic!("no {wanted} after {lines:?}")).unwrap();
        lines.extend(std::str::from_utf8(&buffer[..len]).unwrap().lines().map(str::to_owned));
    }
    lines
}

fn address(process: &Process) -> String {
    let log = process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let ready = lines.into_iter().find(|line| line["message"] == "ready").unwrap();
    format!("http://{}", ready["address"].as_str().unwrap())
}

#[tokio::test]
async fn the_service_manager_hears_that_the_server_is_ready_alive_and_going_down() {
    let database = empty_database().await;
    let dir = tempfile::tempdir().unwrap();
    let (socket, name) = at_path(dir.path());
    let mut process = spawn(&name, database.url().expose(), dir.path(), "200000");
    let before = heard(&socket, "READY=1").await;
    assert!(!before.iter().any(|line| line == "WATCHDOG=1"), "{before:?}");
    for _ in 0..3 {
        heard(&socket, "WATCHDOG=1").await;
    }
    // The line of the log may come after the word to the manager.
    let url = loom_testkit::eventually(async || {
        process.log().contains("\"ready\"").then(|| address(&process))
    })
    .await;
    process.wait_ready(&format!("{url}/health/ready"), PATIENCE).await.unwrap();
    let (ended, last) = tokio::join!(process.terminate(PATIENCE), heard(&socket, "STOPPING=1"));
    assert_eq!(ended.unwrap().code(), Some(0));
    assert!(!last.iter().any(|line| line == "READY=1"), "{last:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_in_the_abstract_namespace_is_told_as_well() {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};

    let database = empty_database().await;
    let dir = tempfile::tempdir().unwrap();
    let name = format!("loom-{}", new_uuid(Clock::system().now()));
    let socket = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = UnixDatagram::from_std(socket).unwrap();
    let mut process = spawn(&format!("@{name}"), database.url().expose(), dir.path(), "");
    heard(&socket, "READY=1").await;
    process.terminate(PATIENCE).await.unwrap();
    let last = heard(&socket, "STOPPING=1").await;
    assert!(!last.iter().any(|line| line == "WATCHDOG=1"), "nobody asked for it: {last:?}");
}

#[tokio::test]
async fn a_server_that_waits_for_its_database_is_not_called_ready() {
    // Takes connections, and says nothing.
    let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://loom:loom@{}/loom", database.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (socket, name) = at_path(dir.path());
    let mut process = spawn(&name, &url, dir.path(), "");
    let _connection = timeout(PATIENCE, database.accept()).await.unwrap().unwrap();
    assert_eq!(process.terminate(PATIENCE).await.unwrap().code(), Some(0), "{}", process.log());
    let mut buffer = [0; 4096];
    if let Ok(len) = socket.try_recv(&mut buffer) {
        panic!("it said {:?}", String::from_utf8_lossy(&buffer[..len]));
    }
}

#[tokio::test]
async fn a_server_that_nobody_listens_to_starts_all_the_same() {
    let database = empty_database().await;
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("no-such-socket");
    let mut process = spawn(gone.to_str().unwrap(), database.url().expose(), dir.path(), "");
    let url = loom_testkit::eventually(async || {
        process.log().contains("\"message\":\"ready\"").then(|| address(&process))
    })
    .await;
    process.wait_ready(&format!("{url}/health/ready"), PATIENCE).await.unwrap();
    assert_eq!(process.terminate(PATIENCE).await.unwrap().code(), Some(0));
}

/// Starts a server that is handed `listener`, as systemd does with that of a socket unit.
fn spawn_listening(listener: &StdListener, socket: &str, database: &str, dir: &Path) -> Child {
    let listener = OwnedFd::from(listener.try_clone().unwrap());
    Command::new("sh")
        .args(["-c", "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve", BINARY])
        .current_dir(dir)
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .env("DATABASE_URL", database)
        .env("LOOM_SERVER_DATA_DIR", dir)
        // Of another process: it is not asked for.
        .env("LOOM_SERVER_PORT", "1")
        .env("NOTIFY_SOCKET", socket)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_request_that_comes_while_no_server_is_there_is_answered_by_the_next() {
    let database = empty_database().await;
    let dir = tempfile::tempdir().unwrap();
    let (socket, name) = at_path(dir.path());
    // The manager's, which listens from before the first server to after the last.
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = database.url().expose();
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /health/ready HTTP/1.1\r\nhost: loom\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        stream
    };
    let answered = async |mut stream: TcpStream| {
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };

    let before = ask().await;
    let mut first = spawn_listening(&listener, &name, url, dir.path());
    heard(&socket, "READY=1").await;
    answered(before).await;
    kill(Pid::from_raw(first.id().unwrap().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(timeout(PATIENCE, first.wait()).await.unwrap().unwrap().code(), Some(0));
    heard(&socket, "STOPPING=1").await;

    let between = ask().await;
    let _second = spawn_listening(&listener, &name, url, dir.path());
    answered(between).await;
}
