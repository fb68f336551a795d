{
  description = "Loom: a self-hosted server for LLM work";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      linux = [ "x86_64-linux" "aarch64-linux" ];
      darwin = [ "x86_64-darwin" "aarch64-darwin" ];
      forEach = systems: make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      # A tree with changes that are not committed has no revision.
      revision = self.rev or null;
    in
    {
      packages = forEach (linux ++ darwin) (
        pkgs:
        {
          default = pkgs.callPackage ./deploy/nix/package.nix { inherit revision; };
          dashboard = pkgs.callPackage ./deploy/nix/dashboard.nix { };
        }
        // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
          auto-update = pkgs.callPackage ./deploy/nix/auto-update/package.nix { };
        }
      );

      devShells = forEach (linux ++ darwin) (pkgs: {
        default = pkgs.callPackage ./deploy/nix/dev-shell.nix {
          loom-server = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        };
      });

      nixosModules = {
        loom-server = import ./deploy/nix/server.nix self;
        auto-update = import ./deploy/nix/auto-update.nix self;
        default.imports = [ self.nixosModules.loom-server self.nixosModules.auto-update ];
      };

      checks = forEach linux (pkgs: {
        package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        auto-update = pkgs.callPackage ./deploy/nix/auto-update/check.nix { };
        nixos = pkgs.testers.runNixOSTest (import ./deploy/nix/vm-test.nix self);
      });

      templates.default = {
        path = ./deploy/nix/example;
        description = "A machine that runs Loom and follows its branch";
      };
    };
}
