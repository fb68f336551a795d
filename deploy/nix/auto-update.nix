# services.loom-auto-update: brings the machine to the head of a branch every few seconds, and back when it is not well.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.loom-auto-update;
  inherit (lib) mkIf mkOption mkEnableOption types;

  http = config.services.loom-server.settings.http or { };
  port = if (http.port or null) == null then 8080 else http.port;
  # One that listens everywhere is asked here.
  address = if lib.elem (http.host or null) [ null "0.0.0.0" "::" ] then "127.0.0.1" else http.host;

  optional =
    type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
  seconds =
    default: description:
    mkOption {
      type = types.numbers.nonnegative;
      inherit default description;
    };

  settings = lib.filterAttrs (_: value: value != null) {
    REPOSITORY = cfg.repository;
    BRANCH = cfg.branch;
    STATE_DIR = cfg.stateDir;
    CHECKOUT = cfg.localPath;
    FLAKE = cfg.flake;
    INPUT = cfg.flakeInput;
    HOST = cfg.flakeAttr;
    BUILD_ARGUMENTS = lib.concatStringsSep " " cfg.buildArguments;
    HEALTH_URL = cfg.healthUrl;
    HEALTH_SECS = cfg.healthSecs;
    HEALTH_TIMEOUT_SECS = cfg.healthTimeoutSecs;
    FETCH_TIMEOUT_SECS = cfg.fetchTimeoutSecs;
    BUILD_TIMEOUT_SECS = cfg.buildTimeoutSecs;
    SWITCH_TIMEOUT_SECS = cfg.switchTimeoutSecs;
    RETRY_FIRST_SECS = cfg.retryFirstSecs;
    RETRY_MOST_SECS = cfg.retryMostSecs;
    MIN_FREE_MIB = cfg.minFreeMiB;
    ALERT_AFTER_SECS = cfg.alertAfterSecs;
    MAIL_TO = cfg.mailTo;
    MAIL_FROM = cfg.mailFrom;
    SENDMAIL = cfg.sendmail;
    NIXOS_REBUILD = cfg.nixosRebuild;
  };

  # The same settings for the unit and for who asks for the status.
  program = pkgs.writeShellScriptBin "loom-auto-update" ''
    ${lib.concatStrings (
      lib.mapAttrsToList (name: value: ''
        export LOOM_AUTO_UPDATE_${name}=${lib.escapeShellArg (toString value)}
      '') settings
    )}
    exec ${lib.getExe cfg.package} "$@"
  '';
in
{
  options.services.loom-auto-update = {
    enable = mkEnableOption "following a branch: fetch, build, switch, look whether the server is well, and go back if it is not";

    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.auto-update;
      defaultText = lib.literalExpression "loom.packages.\${system}.auto-update";
      description = "The program.";
    };

    repository = mkOption {
      type = types.str;
      example = "git@github.com:example/loom.git";
      description = "Where git finds it. Lies in the store, for all to read: give a key by `sshKeyFile`, not a password in here.";
    };
    branch = mkOption {
      type = types.str;
      default = "trunk";
      description = "The branch that is followed.";
    };
    sshKeyFile = optional types.str "The private key for the repository. The host's own key belongs into `programs.ssh.knownHosts`.";
    flakeAttr = mkOption {
      type = types.str;
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      description = "Which of `nixosConfigurations` this machine is.";
    };
    flake = optional types.str "The flake with this machine's configuration when that is not the repository itself, as `/etc/nixos`.";
    flakeInput = optional types.str "The input of `flake` that the repository takes the place of, as `loom`.";
    localPath = optional types.str "Where the repository is checked out; `checkout` in `stateDir` when null. What is changed there by hand is dropped.";
    stateDir = mkOption {
      type = types.str;
      default = "/var/lib/loom-auto-update";
      description = "Where it keeps what it knows.";
    };
    interval = seconds 10 "Seconds from the end of a run to the next.";

    healthUrl = mkOption {
      type = types.str;
      default = "http://${if lib.hasInfix ":" address then "[${address}]" else address}:${toString port}";
      defaultText = lib.literalExpression ''"http://127.0.0.1:''${toString config.services.loom-server.settings.http.port}"'';
      description = "The server; `/health/ready` there must be 200 with the new revision.";
    };
    healthSecs = seconds 30 "Seconds that it must be so without a break.";
    healthTimeoutSecs = seconds 300 "Seconds after the switch until it must be so; migrations run in this time.";
    fetchTimeoutSecs = seconds 60 "Seconds that git may take.";
    buildTimeoutSecs = seconds 7200 "Seconds that a build may take.";
    switchTimeoutSecs = seconds 900 "Seconds that a switch may take.";
    retryFirstSecs = seconds 60 "Seconds until a revision that failed without being to blame is tried again; doubled each time.";
    retryMostSecs = seconds 3600 "The most that this becomes.";
    minFreeMiB = mkOption {
      type = types.ints.unsigned;
      default = 2048;
      description = "With less free space than this, in MiB, nothing is begun.";
    };
    buildArguments = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "--print-build-logs" ];
      description = "Further arguments of `nixos-rebuild build`.";
    };

    webhookUrlFile = optional types.str "A file with the URL that hears of failures, as JSON with a field `text`.";
    mailTo = optional types.str "Who hears of failures by mail.";
    mailFrom = optional types.str "Whom that mail comes from.";
    sendmail = optional types.str "What sends it, as `\${pkgs.msmtp}/bin/sendmail`; `sendmail` when null.";
    alertAfterSecs = seconds 900 "Seconds that the repository may be away until somebody hears of it.";

    nixosRebuild = mkOption {
      type = types.str;
      default = "${config.system.build.nixos-rebuild}/bin/nixos-rebuild";
      defaultText = lib.literalExpression ''"''${config.system.build.nixos-rebuild}/bin/nixos-rebuild"'';
      description = "What builds the system; another one in tests.";
      internal = true;
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.flakeInput == null || cfg.flake != null;
        message = "services.loom-auto-update.flakeInput is an input of services.loom-auto-update.flake, which is not set.";
      }
    ];

    nix.settings.experimental-features = [ "nix-command" "flakes" ];
    environment.systemPackages = [ program ];

    systemd.services.loom-auto-update = {
      description = "Loom: bring this machine to the head of ${cfg.branch}";
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      # It is what switches: a switch must not end it.
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig.X-StopOnRemoval = false;

      path = [ config.nix.package config.programs.ssh.package pkgs.gnutar pkgs.gzip pkgs.xz ];
      environment =
        config.nix.envVars
        // { HOME = "/root"; }
        // lib.optionalAttrs (cfg.sshKeyFile != null) { LOOM_AUTO_UPDATE_SSH_KEY_FILE = "%d/ssh-key"; }
        // lib.optionalAttrs (cfg.webhookUrlFile != null) { LOOM_AUTO_UPDATE_WEBHOOK_URL_FILE = "%d/webhook-url"; };

      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${lib.getExe program} run";
        LoadCredential =
          lib.optional (cfg.sshKeyFile != null) "ssh-key:${cfg.sshKeyFile}"
          ++ lib.optional (cfg.webhookUrlFile != null) "webhook-url:${cfg.webhookUrlFile}";
        # The program hears of a stop, and lets a switch come to its end.
        KillMode = "mixed";
        # Its own words are kept, and not that it was started and ended, six times a minute.
        SyslogLevel = "notice";
        LogLevelMax = "notice";
        TimeoutStopSec = builtins.ceil (2 * cfg.switchTimeoutSecs) + 60;
      };
    };

    systemd.timers.loom-auto-update = {
      description = "Loom: look at ${cfg.branch}";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnActiveSec = "${toString cfg.interval}s";
        OnUnitInactiveSec = "${toString cfg.interval}s";
        AccuracySec = "1s";
      };
    };
  };
}
