{
  description = "A machine that runs Loom, and follows its branch";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    # Your fork, or a mirror of it.
    loom.url = "git+ssh://git@git.example.com/loom?ref=trunk";
    loom.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, loom, ... }:
    {
      nixosConfigurations.loom = nixpkgs.lib.nixosSystem {
        modules = [
          loom.nixosModules.default
          # What `nixos-generate-config` wrote for this machine.
          ./hardware-configuration.nix
          ./loom.nix
        ];
      };
    };
}
