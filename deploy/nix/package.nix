# The server, of Cargo.lock: one derivation for the whole workspace. Nothing in here changes when a crate, a
# migration, a query or a page of the guide comes in.
{
  lib,
  callPackage,
  rustPlatform,
  makeWrapper,
  git,
  postgresql,
  dashboard ? callPackage ./dashboard.nix { },
  revision ? null,
}:
let
  root = ../..;
  manifest = lib.importTOML (root + "/Cargo.toml");
in
rustPlatform.buildRustPackage {
  pname = "loom-server";
  version = manifest.workspace.package.version;

  # What the compiler reads. A change of anything else makes no new source, but its commit a new revision.
  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.difference (lib.fileset.unions [
      (root + "/.cargo")
      (root + "/.sqlx")
      (root + "/Cargo.lock")
      (root + "/Cargo.toml")
      (root + "/crates")
      (root + "/docs")
      (root + "/migrations")
    ]) (root + "/crates/dashboard/ui");
  };
  cargoLock.lockFile = root + "/Cargo.lock";
  cargoBuildFlags = [ "--package" "loom-server" "--features" "otlp" ];

  postPatch = ''
    mkdir -p crates/dashboard/ui
    cp -r ${dashboard} crates/dashboard/ui/dist
  '';

  env = {
    # Queries are checked against .sqlx/: no database while building.
    SQLX_OFFLINE = "true";
    # There is no .git here; /health and the auto-update tell releases apart by it.
    LOOM_GIT_SHA = if revision == null then "unknown" else revision;
  };

  # The tests want a PostgreSQL and Python packages: `make test` runs them, in the development shell.
  doCheck = false;

  # What the server starts: git, and PostgreSQL when it has no DATABASE_URL.
  nativeBuildInputs = [ makeWrapper ];
  postInstall = ''
    wrapProgram $out/bin/loom-server --suffix PATH : ${lib.makeBinPath [ postgresql git ]}
  '';

  passthru = { inherit revision; };

  meta = {
    description = "A self-hosted server for LLM work";
    license = lib.licenses.asl20;
    mainProgram = "loom-server";
  };
}
