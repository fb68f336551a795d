//! The gateways that Loom is compared with: those that `crates/bench/peers/install` has put into a folder.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::load;
use crate::loom::free_address;
use crate::process::Fleet;
use crate::report::Target;
use crate::run::Endpoint;

/// Python takes its time.
const READY: Duration = Duration::from_secs(90);
const TENSORZERO: &str = include_str!("../peers/start_tensorzero.py");
/// It refuses a weak one.
const LITELLM_KEY: &str = "sk-loombench-3f9c2a7e51d04b68";

/// Starts those that are there; of the others it says that they are not measured.
pub(crate) async fn start(
    fleet: &mut Fleet,
    dir: &Path,
    upstream: SocketAddr,
) -> Result<Vec<Endpoint>> {
    let dir = &fs::canonicalize(dir)
        .with_context(|| format!("{}: crates/bench/peers/install makes it", dir.display()))?;
    let mut started = Vec::new();
    for target in [Target::Nginx, Target::LiteLlm, Target::TensorZero, Target::Portkey] {
        let result = match target {
            Target::Nginx => nginx(fleet, upstream).await,
            Target::LiteLlm => litellm(fleet, dir, upstream).await,
            Target::TensorZero => tensorzero(fleet, dir, upstream).await,
            _ => portkey(fleet, dir, upstream).await,
        };
        match result {
            Ok(endpoint) => started.push(endpoint),
            Err(error) => {
                crate::note(&format!("{} is not measured: {error:#}", target.name()));
            }
        }
    }
    Ok(started)
}

/// A file of the bench's for a peer.
fn write(fleet: &Fleet, name: &str, text: &str) -> Result<PathBuf> {
    let path = fleet.dir.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn quiet<'c>(command: &'c mut Command, fleet: &Fleet, name: &str) -> Result<&'c mut Command> {
    let log = File::create(fleet.dir.join(format!("{name}.log")))?;
    Ok(command.stdout(log.try_clone()?).stderr(log))
}

/// Waits until anything answers there.
async fn ready(fleet: &mut Fleet, pid: u32, address: SocketAddr) -> Result<()> {
    let request = load::request("GET", "/", address, None, "");
    let deadline = Instant::now() + READY;
    while !matches!(timeout(READY, load::once(address, &request)).await, Ok(Ok(_))) {
        if let Some(status) = fleet.ended(pid) {
            bail!("it has ended: {status}");
        }
        if Instant::now() >= deadline {
            bail!("it is not ready after {} s", READY.as_secs());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn nginx(fleet: &mut Fleet, upstream: SocketAddr) -> Result<Endpoint> {
    let address = free_address()?;
    let dir = fleet.dir.display();
    let config = format!(
        "daemon off; worker_processes auto; pid {dir}/nginx.pid; error_log {dir}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {dir}/nginx-body; proxy_temp_path {dir}/nginx-proxy;
  fastcgi_temp_path {dir}/nginx-f; uwsgi_temp_path {dir}/nginx-u; scgi_temp_path {dir}/nginx-s;
  upstream mock {{ server {upstream}; keepalive 256; }}
  server {{
    listen {address};
    keepalive_requests 1000000000;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off;
    }}
  }}
}}
"
    );
    let config = write(fleet, "nginx.conf", &config)?;
    let mut command = Command::new("nginx");
    let command = command.arg("-e").arg(fleet.dir.join("nginx-early.log")).arg("-c").arg(config);
    let (pid, _) = fleet.start(quiet(command, fleet, "nginx")?)?;
    ready(fleet, pid, address).await?;
    Ok(Endpoint::new(Target::Nginx, address, pid))
}

async fn litellm(fleet: &mut Fleet, dir: &Path, upstream: SocketAddr) -> Result<Endpoint> {
    let binary = dir.join("litellm/bin/litellm");
    let address = free_address()?;
    let config = format!(
        "model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: \"http://{upstream}/v1\", api_key: sk-bench}}
litellm_settings: {{telemetry: false}}
general_settings: {{master_key: {LITELLM_KEY}}}
"
    );
    let config = write(fleet, "litellm.yaml", &config)?;
    let mut command = Command::new(binary);
    command
        .args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--config"])
        .arg(config)
        // Else it asks the network for its prices, and writes a line a request.
        .envs([("LITELLM_LOCAL_MODEL_COST_MAP", "True"), ("LITELLM_LOG", "ERROR")]);
    let (pid, _) = fleet.start(quiet(&mut command, fleet, "litellm")?)?;
    ready(fleet, pid, address).await?;
    Ok(Endpoint {
        headers: vec![("authorization", format!("Bearer {LITELLM_KEY}"))],
        rewrites: true,
        ..Endpoint::new(Target::LiteLlm, address, pid)
    })
}

async fn tensorzero(fleet: &mut Fleet, dir: &Path, upstream: SocketAddr) -> Result<Endpoint> {
    let config = format!(
        "[gateway]
observability.enabled = false
[models.bench]
routing = [\"openai\"]
[models.bench.providers.openai]
type = \"openai\"
model_name = \"gpt-4o-mini\"
api_base = \"http://{upstream}/v1/\"
"
    );
    let config = write(fleet, "tensorzero.toml", &config)?;
    let program = write(fleet, "start_tensorzero.py", TENSORZERO)?;
    let mut command = Command::new(dir.join("tensorzero/bin/python"));
    command.arg(program).arg(config).env("OPENAI_API_KEY", "sk-bench");
    let log = File::create(fleet.dir.join("tensorzero.log"))?;
    let (pid, address) = fleet.start_telling(command.stderr(log)).await?;
    Ok(Endpoint {
        path: Some("/openai/v1/chat/completions"),
        model: Some("tensorzero::model_name::bench"),
        rewrites: true,
        ..Endpoint::new(Target::TensorZero, address, pid)
    })
}

async fn portkey(fleet: &mut Fleet, dir: &Path, upstream: SocketAddr) -> Result<Endpoint> {
    let program = dir.join("portkey/node_modules/@portkey-ai/gateway/build/start-server.js");
    if !program.exists() {
        bail!("{} is not there", program.display());
    }
    let own = dir.join("node/bin/node");
    let node = if own.exists() { own } else { PathBuf::from("node") };
    let address = free_address()?;
    let mut command = Command::new(node);
    command.arg(program).arg(format!("--port={}", address.port())).arg("--headless");
    let (pid, _) = fleet.start(quiet(&mut command, fleet, "portkey")?)?;
    ready(fleet, pid, address).await?;
    Ok(Endpoint {
        headers: vec![
            ("authorization", "Bearer sk-bench".to_owned()),
            ("x-portkey-provider", "openai".to_owned()),
            ("x-portkey-custom-host", format!("http://{upstream}/v1")),
        ],
        rewrites: true,
        ..Endpoint::new(Target::Portkey, address, pid)
    })
}
