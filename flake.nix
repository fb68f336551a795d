{
  description = "Loom: a self-hosted server for LLM work";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      forEachSystem = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      manifest = nixpkgs.lib.importTOML ./Cargo.toml;
    in
    {
      packages = forEachSystem (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "loom-server";
          version = manifest.workspace.package.version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          cargoBuildFlags = [ "--package" "loom-server" "--features" "otlp" ];
          # Queries are checked against .sqlx/: no database while building.
          env.SQLX_OFFLINE = "true";
          # The tests want a PostgreSQL and Python packages: `make test` runs them, in the development shell.
          doCheck = false;
          # What the server starts: PostgreSQL when it has no DATABASE_URL, and git.
          nativeBuildInputs = [ pkgs.makeWrapper ];
          postInstall = ''
            wrapProgram $out/bin/loom-server --suffix PATH : ${nixpkgs.lib.makeBinPath [ pkgs.postgresql pkgs.git ]}
          '';
          meta = {
            license = nixpkgs.lib.licenses.asl20;
            mainProgram = "loom-server";
          };
        };
      });

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.default ];
          packages = [
            pkgs.cargo-deny
            pkgs.cargo-nextest
            pkgs.clippy
            pkgs.gnumake
            pkgs.postgresql
            pkgs.python3
            pkgs.rustfmt
          ];
        };
      });
    };
}
