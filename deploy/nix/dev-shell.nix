# What `make test` and `.ci/run` need, beside what the server is built with. `make run` needs no more.
{
  mkShell,
  cargo-deny,
  cargo-nextest,
  clippy,
  curl,
  git,
  gnumake,
  nodejs,
  postgresql,
  python3,
  rustfmt,
  shellcheck,
  loom-server,
}:
mkShell {
  inputsFrom = [ loom-server ];
  packages = [
    cargo-deny
    cargo-nextest
    clippy
    curl
    git
    gnumake
    nodejs
    postgresql
    python3
    rustfmt
    shellcheck
  ];
}
