# Evaluates the flake, its packages and its modules, and says what does not come to what it should.
#
#   nix-instantiate --eval --strict --json -E 'import ./deploy/nix/tests/evaluate.nix { }'   # or { lib = import <nixpkgs/lib>; }
{
  lib ? import ./lib.nix,
}:
let
  # Packages that are only names, and builders that give back what they were given.
  package = name: { type = "derivation"; inherit name; outPath = "/nix/store/${name}"; meta.mainProgram = name; };
  builder = arguments: arguments // { type = "derivation"; outPath = "/nix/store/${arguments.pname or arguments.name or "built"}"; };
  pkgs =
    lib.genAttrs [ "bash" "cacert" "cargo-deny" "cargo-nextest" "clippy" "coreutils" "curl" "git" "gnugrep" "gnumake" "gnused" "gnutar" "gzip" "jq" "makeWrapper" "nodejs" "postgresql" "postgresql_17" "python3" "rustfmt" "shellcheck" "util-linux" "xz" ] package
    // {
      inherit lib;
      stdenv.hostPlatform = { system = "x86_64-linux"; isLinux = true; };
      callPackage = file: arguments: let f = import file; in f (builtins.intersectAttrs (builtins.functionArgs f) pkgs // arguments) // { override = more: pkgs.callPackage file (arguments // more); };
      rustPlatform.buildRustPackage = arguments: builder (arguments // (arguments.passthru or { }));
      stdenvNoCC.mkDerivation = builder;
      buildNpmPackage = builder;
      importNpmLock = { __functor = _: arguments: arguments; npmConfigHook = "hook"; };
      mkShell = builder;
      runCommand = name: arguments: script: builder (arguments // { inherit name script; });
      writeShellScriptBin = name: text: package name // { inherit text; };
      writeShellScript = name: text: package name // { inherit text; };
      testers.runNixOSTest = test: test { inherit lib pkgs; };
    };

  flake = (import ../../../flake.nix).outputs {
    self = flake // { rev = revision; outPath = ../../..; };
    nixpkgs = { inherit lib; legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ] (system: pkgs // { stdenv.hostPlatform = { inherit system; isLinux = lib.hasInfix "linux" system; }; }); };
  };
  revision = "0123456789abcdef0123456789abcdef01234567";
  here = flake.packages.x86_64-linux;
  sources = here.dashboard.npmDeps.packageSourceOverrides;

  # What the modules write to, of NixOS.
  nixos = {
    options =
      let
        anything = lib.mkOption { type = lib.types.anything; default = { }; };
        list = lib.mkOption { type = lib.types.listOf lib.types.anything; default = [ ]; };
      in
      {
        assertions = list;
        environment = { systemPackages = list; etc = anything; };
        networking = { hostName = lib.mkOption { type = lib.types.str; default = "machine"; }; firewall.allowedTCPPorts = list; };
        nix = { settings = anything; package = anything; envVars = anything; };
        programs.ssh = anything;
        security = anything;
        services = { nginx = anything; postgresql = anything; };
        system = anything;
        systemd = anything;
        users = anything;
      };
    config = {
      nix.package = package "nix";
      programs.ssh.package = package "openssh";
      system.build.nixos-rebuild = package "nixos-rebuild";
    };
  };
  machine =
    config:
    (lib.evalModules {
      modules = [ nixos flake.nixosModules.default { inherit config; } ];
      specialArgs = { inherit pkgs; };
    }).config;
  failed = machine: map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) machine.assertions);

  # The machine of the template.
  example = machine (import ../example/loom.nix { inherit pkgs; });
  unit = example.systemd.services.loom-server;
  updater = example.systemd.services.loom-auto-update;
  programNamed = name: (lib.head (lib.filter (one: one.name == name) example.environment.systemPackages)).text;
  program = programNamed "loom-auto-update";
  commandLine = programNamed "loom-server";

  given = {
    BRANCH = "trunk";
    HOST = "loom";
    FLAKE = "/etc/nixos";
    INPUT = "loom";
    HEALTH_URL = "http://127.0.0.1:8080";
    NIXOS_REBUILD = "/nix/store/nixos-rebuild/bin/nixos-rebuild";
  };

  wrong = config: failed (machine { services.loom-server = { enable = true; } // config; });
  elsewhere = { secrets.DATABASE_URL = "/run/secrets/database"; };
  with' = settings: (machine { services.loom-server = { enable = true; inherit settings; } // elsewhere; }).systemd.services.loom-server;

  socketOf = settings: (machine { services.loom-server = { enable = true; inherit settings; } // elsewhere; }).systemd.sockets.loom-server;

  settings = import ../settings.nix { inherit lib; };

  expectations = {
    "the flake has its outputs" = builtins.attrNames flake == [ "checks" "devShells" "nixosModules" "packages" "templates" ];
    "there are packages for each system" = lib.genAttrs (builtins.attrNames flake.packages) (system: builtins.attrNames flake.packages.${system}) == {
      x86_64-linux = [ "auto-update" "dashboard" "default" ];
      aarch64-linux = [ "auto-update" "dashboard" "default" ];
      x86_64-darwin = [ "dashboard" "default" ];
      aarch64-darwin = [ "dashboard" "default" ];
    };
    "there are checks" = builtins.attrNames flake.checks.x86_64-linux == [ "auto-update" "nixos" "package" ];
    "the sources are there" = builtins.all (package: toString package.src != "") [ here.default here.dashboard here.auto-update ];
    "the server has the commit's revision" = here.default.env.LOOM_GIT_SHA == revision && here.default.revision == revision;
    "a tree with changes has no revision" = (here.default.override { revision = null; }).env.LOOM_GIT_SHA == "unknown";
    "the server has its dashboard" = lib.hasInfix "${here.dashboard} crates/dashboard/ui/dist" here.default.postPatch;
    "every package of npm has a source of its own hash" = builtins.all (path: path == "" || sources.${path}.outputHash == here.dashboard.npmDeps.packageLock.packages.${path}.integrity) (builtins.attrNames here.dashboard.npmDeps.packageLock.packages);
    "scopes and nesting are told apart" =
      lib.hasInfix "npm pack --ignore-scripts svelte@" sources."node_modules/svelte".script
      && lib.hasInfix "npm pack --ignore-scripts @babel/code-frame@" sources."node_modules/@babel/code-frame".script;
    "the shell has what the server is built with" = builtins.length flake.devShells.x86_64-linux.default.inputsFrom == 1;
    "the scenarios are run" = lib.hasInfix "test_scenarios.py" flake.checks.x86_64-linux.auto-update.script;
    "the test of a machine names it" = flake.checks.x86_64-linux.nixos.name == "loom" && builtins.isString flake.checks.x86_64-linux.nixos.testScript;
    "the test's machine can be evaluated" =
      let
        node = flake.checks.x86_64-linux.nixos.nodes.machine { inherit pkgs; config = { }; };
        services = (machine { inherit (node) services; }).systemd.services;
      in
      services.loom-server.environment.LOOM_SERVER_HEALTH_DISK_FREE_MIB == "0" && builtins.isString services.loom-auto-update.serviceConfig.ExecStart;

    "the template is a flake" = builtins.isFunction (import ../example/flake.nix).outputs;
    "the template's machine fails no assertion" = failed example == [ ];
    "it is production with its data in the state directory" = unit.environment.LOOM_SERVER_ENV == "production" && unit.environment.LOOM_SERVER_DATA_DIR == "/var/lib/loom";
    "its database is over a socket" = unit.environment.DATABASE_URL == "postgres://loom@localhost/loom?host=/run/postgresql" && example.services.postgresql.ensureDatabases == [ "loom" ];
    "nginx and the server know of each other" =
      unit.environment.LOOM_SERVER_HOST == "127.0.0.1"
      && unit.environment.LOOM_SERVER_BASE_URL == "https://loom.example.com"
      && unit.environment.LOOM_SERVER_TRUSTED_PROXIES == "127.0.0.1,::1"
      && example.services.nginx.virtualHosts."loom.example.com".locations."/".proxyPass == "http://127.0.0.1:8080"
      && example.networking.firewall.allowedTCPPorts == [ 80 443 ];
    "secrets come by file" =
      unit.environment.LOOM_SERVER_MASTER_KEY_FILE == "%d/LOOM_SERVER_MASTER_KEY"
      && lib.elem "LOOM_SERVER_MASTER_KEY:/etc/loom/master-key" unit.serviceConfig.LoadCredential
      && !(unit.environment ? LOOM_SERVER_MASTER_KEY);
    "lists are joined" = unit.environment.LOOM_SERVER_SIGN_UP_DOMAINS == "example.com";
    "what is not set is left to the server" = !(unit.environment ? LOOM_SERVER_PORT);
    "its unit is ready when the server says so" = unit.serviceConfig.Type == "notify" && unit.serviceConfig.ProtectSystem == "strict" && unit.serviceConfig.TimeoutStopSec == 60;
    "it has time for its delay and its grace" = (with' { http.shutdownDelaySecs = 10; http.shutdownGraceSecs = 45; }).serviceConfig.TimeoutStopSec == 85;
    "root's command line has the server's settings and secrets" =
      builtins.all (line: lib.hasInfix "${line}\n" commandLine) [
        "export LOOM_SERVER_ENV=${lib.escapeShellArg "production"}"
        "export LOOM_SERVER_BASE_URL=${lib.escapeShellArg "https://loom.example.com"}"
        "export DATABASE_URL=${lib.escapeShellArg "postgres://loom@localhost/loom?host=/run/postgresql"}"
        "LOOM_SERVER_MASTER_KEY=$(cat ${lib.escapeShellArg "/etc/loom/master-key"}) || exit"
      ];
    "the system tells the server's revision" = example.environment.etc."loom-server/revision".text == "${revision}\n";
    "the update knows the machine" =
      builtins.all (name: lib.hasInfix "export LOOM_AUTO_UPDATE_${name}=${lib.escapeShellArg given.${name}}\n" program) (builtins.attrNames given);
    "the update's secrets come by file" =
      updater.serviceConfig.LoadCredential == [ "ssh-key:/etc/loom/deploy-key" "webhook-url:/etc/loom/alert-webhook" ]
      && updater.environment.LOOM_AUTO_UPDATE_SSH_KEY_FILE == "%d/ssh-key";
    "a switch does not end the update" = !updater.restartIfChanged && !updater.stopIfChanged;
    "the timer looks every ten seconds" = example.systemd.timers.loom-auto-update.timerConfig.OnUnitInactiveSec == "10s";

    "numbers, truths and percent signs are written as the server reads them" =
      let unit = with' { http.port = 80; sessionsOfApplications.sessionsSampleRate = 0.5; selfMonitoring.selfMonitoring = false; signingIn.oidcName = "50%"; }; in
      unit.environment.LOOM_SERVER_PORT == "80"
      && lib.hasPrefix "0.5" unit.environment.LOOM_SERVER_SESSIONS_SAMPLE_RATE
      && unit.environment.LOOM_SERVER_SELF_MONITORING == "false"
      && unit.environment.LOOM_SERVER_OIDC_NAME == "50%%";
    "systemd listens for it, and goes on when it is replaced" =
      example.systemd.sockets.loom-server.listenStreams == [ "127.0.0.1:8080" ]
      && (socketOf { http.host = "::"; http.port = 80; }).listenStreams == [ "[::]:80" ]
      && !unit.stopIfChanged
      && unit.notSocketActivated;
    "a setting of the wrong type is refused" = !(builtins.tryEval (with' { http.port = "eighty"; }).environment.LOOM_SERVER_PORT).success;
    "without a database there is no server" = builtins.length (wrong { }) == 1;
    "a secret in the environment is refused" = builtins.length (wrong (elsewhere // { environment.LOOM_SERVER_MASTER_KEY = "x"; })) == 1;
    "a secret in the store is refused" = builtins.length (wrong { secrets.DATABASE_URL = "${builtins.storeDir}/x"; }) == 1;
    "two databases are refused" = builtins.length (wrong (elsewhere // { database.createLocally = true; })) == 1;
    "a server that is not enabled leaves no trace" =
      let off = machine { }; in
      off.assertions == [ ] && off.environment == { systemPackages = [ ]; etc = { }; } && !(off.systemd ? services) && off.users == { };
  };
in
{
  failed = builtins.attrNames (lib.filterAttrs (_: holds: !holds) expectations);
  checked = builtins.length (builtins.attrNames expectations);
  # For a comparison with .env.example as others read it.
  settings = map (setting: setting.name) settings.settings;
  options = lib.concatStringsSep " " (map (setting: "${setting.group}.${setting.option}") settings.settings);
}
