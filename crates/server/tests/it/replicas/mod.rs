//! Three servers, each a process of its own, behind a balancer as `deploy/balancer/` sets it up.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "clippy knows tests, but not what only tests call"
)]

mod one;
mod rolling_chaos;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use loom_testkit::{TestDatabase, app::UPSTREAM_KEY, chaos::Process, llm::MockLlm};
use reqwest::{Client, Method, RequestBuilder};
use tempfile::TempDir;

use crate::cli::{BINARY, Cli};

const PATIENCE: Duration = Duration::from_secs(60);
const SERVERS: usize = 3;
/// So long a server that goes is still there for a balancer that does not know yet.
const DELAY: &str = "5";

#[derive(Clone, Copy)]
enum Balancer {
    Haproxy,
    Nginx,
}

impl Balancer {
    /// Where it is installed. `.ci/setup` installs HAProxy; whoever has nginx tries that too.
    fn program(self) -> Option<PathBuf> {
        let name = match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs =
            std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
        let wanted = matches!(self, Self::Haproxy) && std::env::var_os("CI").is_some();
        assert!(found.is_some() || !wanted, "`.ci/setup haproxy` installs HAProxy");
        if found.is_none() {
            eprintln!("{name} is not installed: nothing was tested");
        }
        found
    }

    /// The configuration that we give away, with these addresses.
    fn configuration(self, dir: &Path, port: u16, servers: &[u16]) -> String {
        let name = match self {
            Self::Haproxy => "haproxy.cfg",
            Self::Nginx => "nginx.conf",
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/balancer/");
        let mut text = fs::read_to_string(format!("{path}{name}")).unwrap();
        for (n, server) in servers.iter().enumerate() {
            let (from, to) = (format!("10.0.0.{}:8080", n + 1), format!("127.0.0.1:{server}"));
            assert!(text.contains(&from), "{text}");
            text = text.replace(&from, &to);
        }
        match self {
            Self::Haproxy => text.replace("bind :80", &format!("bind 127.0.0.1:{port}")),
            Self::Nginx => {
                let text = text.replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
                let dir = dir.display();
                let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|kind| format!("{kind}_temp_path {dir}/nginx-{kind};\n"))
                    .concat();
                format!(
                    "daemon off; worker_processes 2; pid {dir}/nginx.pid;\n\
                     error_log stderr warn; events {{ worker_connections 4096; }}\n\
                     http {{ access_log off;\n{temporary}{text}\n}}\n"
                )
            }
        }
    }
}

/// Ports below those that the kernel gives to outgoing connections, so that a server that is started again
/// finds its own still free.
fn free_ports<const N: usize>() -> [u16; N] {
    // For each process, and each call in it, a place of its own to begin at.
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let place = std::process::id() * 8 + CALLS.fetch_add(1, Ordering::Relaxed) * 500;
    let mut held = (10_000 + place % 20_000..32_000)
        .filter_map(|port| u16::try_from(port).ok())
        .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let held: [TcpListener; N] = std::array::from_fn(|_| held.next().unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// The servers, and what is before and behind them.
struct Cluster {
    database: TestDatabase,
    servers: Vec<Process>,
    ports: [u16; SERVERS],
    url: String,
    balancer: Process,
    mock: MockLlm,
    dir: TempDir,
}

impl Cluster {
    /// None where the balancer is not installed.
    async fn start(balancer: Balancer) -> Option<Self> {
        let program = balancer.program()?;
        loom_testkit::app::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let [port, ports @ ..] = free_ports::<{ SERVERS + 1 }>();
        let configuration = dir.path().join("balancer.conf");
        fs::write(&configuration, balancer.configuration(dir.path(), port, &ports)).unwrap();
        let configuration = configuration.to_str().unwrap();
        let args = match balancer {
            Balancer::Haproxy => vec!["-db", "-f", configuration],
            Balancer::Nginx => vec!["-c", configuration, "-p", dir.path().to_str().unwrap()],
        };
        let log = dir.path().join("balancer.log");
        let database = TestDatabase::new().await;
        let mut cluster = Self {
            database,
            servers: Vec::new(),
            ports,
            url: format!("http://127.0.0.1:{port}"),
            balancer: Process::spawn(&program, &args, [], &log).unwrap(),
            mock: MockLlm::start(UPSTREAM_KEY),
            dir,
        };
        for n in 0..SERVERS {
            let server = cluster.spawn(n);
            cluster.servers.push(server);
        }
        for n in 0..SERVERS {
            cluster.ready(n).await;
        }
        let url = format!("{}/health/ready", cluster.url);
        cluster.balancer.wait_ready(&url, PATIENCE).await.unwrap();
        Some(cluster)
    }

    fn spawn(&self, n: usize) -> Process {
        let data = self.dir.path().join(format!("data-{n}"));
        let env = [
            ("DATABASE_URL", self.database.url().expose()),
            ("LOOM_SERVER_DATA_DIR", data.to_str().unwrap()),
            ("LOOM_SERVER_HOST", "127.0.0.1"),
            ("LOOM_SERVER_PORT", &self.ports[n].to_string()),
            ("LOOM_SERVER_PEER_URL", &self.direct(n)),
            ("LOOM_SERVER_MASTER_KEY", &("5a".repeat(31) + "01")),
            ("LOOM_SERVER_TRUSTED_PROXIES", "127.0.0.1"),
            ("LOOM_SERVER_SHUTDOWN_DELAY_SECS", DELAY),
            ("LOOM_SERVER_OPENAI_API_KEY", UPSTREAM_KEY),
            ("LOOM_SERVER_OPENAI_BASE_URL", &format!("{}/v1", self.mock.url())),
            // Each second, so that there are some.
            ("LOOM_SERVER_AUTH_SESSION_CLEANUP_INTERVAL_SECS", "1"),
            ("LOOM_SERVER_LOG_FORMAT", "json"),
            ("RUST_LOG", ""),
        ];
        let log = self.dir.path().join(format!("server-{n}.log"));
        Process::spawn(Path::new(BINARY), &["serve"], env, &log).unwrap()
    }

    async fn ready(&mut self, n: usize) {
        let url = format!("{}/health/ready", self.direct(n));
        self.servers[n].wait_ready(&url, PATIENCE).await.unwrap();
    }

    /// Where this server is, past the balancer.
    fn direct(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[n])
    }

    /// Ends a server in good order, and starts it anew.
    async fn restart(&mut self, n: usize) {
        let status = self.servers[n].terminate(PATIENCE).await.unwrap();
        let log = self.servers[n].log();
        assert!(status.success(), "{status}: {log}");
        assert!(!log.contains(r#""level":"ERROR""#), "it complains: {log}");
        self.servers[n] = self.spawn(n);
        self.ready(n).await;
    }

    /// Somebody new, behind the balancer.
    async fn admin(&self, name: &str) -> Person {
        let mail = format!("{name}@example.com");
        let key = Cli::on(&self.database).run(&["admin", "create", &mail]).await.exits(0);
        Person {
            http: Client::builder().no_proxy().build().unwrap(),
            url: self.url.clone(),
            key: key.out.trim().to_owned(),
        }
    }
}

#[derive(Clone)]
struct Person {
    http: Client,
    url: String,
    key: String,
}

impl Person {
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.ask(Method::GET, path)
    }

    /// The same at one of the servers.
    fn at(&self, url: String) -> Self {
        Self { url, ..self.clone() }
    }
}
