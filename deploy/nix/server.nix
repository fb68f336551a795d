# services.loom-server: the server as a hardened unit, with PostgreSQL and nginx beside it when that is wanted.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.loom-server;
  inherit (lib) mkIf mkDefault mkOption mkEnableOption types;
  known = import ./settings.nix { inherit lib; };
  http = cfg.settings.http;
  port = if http.port == null then 8080 else http.port;
  host = if http.host == null then "0.0.0.0" else http.host;
  listenHost = if lib.hasInfix ":" host then "[${host}]" else host;
  grace = if http.shutdownGraceSecs == null then 30 else http.shutdownGraceSecs;
  delay = if http.shutdownDelaySecs == null then 0 else http.shutdownDelaySecs;
  user = "loom";
  database = "postgres://${user}@localhost/${user}?host=/run/postgresql";
  revision = cfg.package.revision or null;
  # systemd would read something into it.
  literally = lib.mapAttrs (_: lib.replaceStrings [ "%" ] [ "%%" ]);
  environment =
    known.environment cfg.settings
    // lib.optionalAttrs cfg.database.createLocally { DATABASE_URL = database; }
    // { HOME = "/var/lib/loom"; }
    // cfg.environment;

  # The same settings for the unit and for root's `loom-server doctor`, `backup`, `admin create`. What `cron exec` runs
  # stays as it is.
  program = pkgs.writeShellScriptBin "loom-server" ''
    if [[ $EUID == 0 && ''${1-} != cron ]]; then
      ${lib.concatStrings (
        lib.mapAttrsToList (name: value: ''
          export ${name}=${lib.escapeShellArg value}
        '') environment
        ++ lib.mapAttrsToList (name: path: ''
          ${name}=$(cat ${lib.escapeShellArg path}) || exit
          export ${name}
        '') cfg.secrets
      )}
      cd /var/lib/loom
      exec ${pkgs.util-linux}/bin/setpriv --reuid=${user} --regid=${user} --init-groups -- ${lib.getExe cfg.package} "$@"
    fi
    exec ${lib.getExe cfg.package} "$@"
  '';
in
{
  options.services.loom-server = {
    enable = mkEnableOption "the Loom server";

    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalExpression "loom.packages.\${system}.default";
      description = "The server.";
    };

    settings = known.options;

    environment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        LOOM_SERVER_LLM_PROVIDERS = "groq";
        LOOM_SERVER_LLM_GROQ_BASE_URL = "https://api.groq.com/openai/v1";
      };
      description = "Settings by the names of the environment, for those that `settings` has not, as of further providers. Wins over `settings`. Not for secrets: it lies in the store, for all to read.";
    };

    secrets = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        LOOM_SERVER_ANTHROPIC_API_KEY = "/run/secrets/anthropic";
      };
      description = "The file on this machine that each secret is read from when the server starts, by the secret's name in the environment (${lib.concatStringsSep ", " known.secrets}). Only root has to be able to read it.";
    };

    database.createLocally = mkOption {
      type = types.bool;
      default = false;
      description = "Runs PostgreSQL on this machine, with a database for the server, reached over its socket without a password. Else the secret `DATABASE_URL` says where it is.";
    };

    nginx = {
      enable = mkEnableOption "nginx before the server, with streams, pushes and uploads in mind";
      domain = mkOption {
        type = types.str;
        example = "loom.example.com";
        description = "The name under which users reach the server.";
      };
      acme = mkOption {
        type = types.bool;
        default = true;
        description = "Whether the certificate comes by ACME (needs `security.acme`); else `services.nginx.virtualHosts.<domain>` says where it is.";
      };
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Opens the port of the server, or with nginx 80 and 443.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.database.createLocally || cfg.secrets ? DATABASE_URL;
        message = "services.loom-server: set database.createLocally, or secrets.DATABASE_URL to a file with the URL of a PostgreSQL.";
      }
      {
        assertion = !(cfg.database.createLocally && cfg.secrets ? DATABASE_URL);
        message = "services.loom-server: database.createLocally and secrets.DATABASE_URL contradict each other.";
      }
      (
        let
          bare = lib.intersectLists (known.secrets ++ map (name: "${name}_FILE") known.secrets) (lib.attrNames cfg.environment);
        in
        {
          assertion = bare == [ ];
          message = "services.loom-server.environment lies in the store, for all to read: ${lib.concatStringsSep ", " bare} must be in services.loom-server.secrets.";
        }
      )
      (
        let
          # A path of Nix copies the file into the store when it becomes text.
          stored = lib.filterAttrs (_: path: !(lib.hasPrefix "/" path) || lib.hasPrefix builtins.storeDir path) cfg.secrets;
        in
        {
          assertion = stored == { };
          message = "services.loom-server.secrets.${lib.concatStringsSep ", " (lib.attrNames stored)} must be the absolute path of a file outside of the store, as text in quotes.";
        }
      )
    ];

    services.loom-server.settings = lib.mkMerge [
      {
        general.env = mkDefault "production";
        general.dataDir = mkDefault "/var/lib/loom";
        log.logFormat = mkDefault "json";
      }
      (mkIf cfg.nginx.enable {
        http.host = mkDefault "127.0.0.1";
        http.baseUrl = mkDefault "https://${cfg.nginx.domain}";
        http.trustedProxies = mkDefault [ "127.0.0.1" "::1" ];
      })
    ];

    # What the auto-update expects to be told by the server of this system.
    environment.etc."loom-server/revision" = mkIf (revision != null) { text = "${revision}\n"; };
    environment.systemPackages = [ program ];

    users.users.${user} = {
      isSystemUser = true;
      group = user;
      home = "/var/lib/loom";
    };
    users.groups.${user} = { };

    # systemd listens, also on a low port, and connections wait there while one server is replaced by the next.
    systemd.sockets.loom-server = {
      description = "Loom";
      wantedBy = [ "sockets.target" ];
      listenStreams = [ "${listenHost}:${toString port}" ];
      socketConfig.Backlog = 4096;
    };

    systemd.services.loom-server = {
      description = "Loom";
      documentation = [ "${if http.baseUrl == null then "http://localhost:${toString port}" else http.baseUrl}/docs" ];
      wantedBy = [ "multi-user.target" ];
      # It waits for a database that is restarted, and need not be restarted with it.
      wants = [ "network-online.target" ] ++ lib.optional cfg.database.createLocally "postgresql.target";
      after = [ "network-online.target" "loom-server.socket" ] ++ lib.optional cfg.database.createLocally "postgresql.target";
      requires = [ "loom-server.socket" ];
      # A new release takes the place of the old, and the socket stays: nobody is refused meanwhile.
      stopIfChanged = false;
      notSocketActivated = true;
      # It is tried for ever: what is wrong outside may be mended outside.
      startLimitIntervalSec = 0;

      environment =
        literally environment // lib.mapAttrs' (name: _: lib.nameValuePair "${name}_FILE" "%d/${name}") cfg.secrets;

      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe cfg.package} serve";
        User = user;
        Group = user;
        WorkingDirectory = "/var/lib/loom";
        StateDirectory = "loom";
        StateDirectoryMode = "0700";
        LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") cfg.secrets;

        Restart = "on-failure";
        RestartSec = 5;
        # Wrong settings do not mend themselves.
        RestartPreventExitStatus = 78;
        # Migrations of large tables come before readiness.
        TimeoutStartSec = "15min";
        # Requests and streams are let end, then all is written.
        TimeoutStopSec = builtins.ceil (delay + grace) + 30;
        KillMode = "mixed";
        WatchdogSec = 60;
        LimitNOFILE = 65536;

        UMask = "0077";
        NoNewPrivileges = true;
        CapabilityBoundingSet = [ "" ];
        ProtectSystem = "strict";
        ProtectHome = true;
        ProtectProc = "invisible";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        PrivateDevices = true;
        PrivateTmp = true;
        PrivateUsers = true;
        PrivateMounts = true;
        RemoveIPC = true;
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        RestrictAddressFamilies = [ "AF_INET" "AF_INET6" "AF_UNIX" "AF_NETLINK" ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [ "@system-service" "~@privileged" ];
        SystemCallErrorNumber = "EPERM";
      };
    };

    services.postgresql = mkIf cfg.database.createLocally {
      enable = true;
      ensureDatabases = [ user ];
      ensureUsers = [
        {
          name = user;
          ensureDBOwnership = true;
        }
      ];
    };

    services.nginx = mkIf cfg.nginx.enable {
      enable = true;
      recommendedProxySettings = mkDefault true;
      recommendedTlsSettings = mkDefault true;
      virtualHosts.${cfg.nginx.domain} = {
        forceSSL = mkDefault true;
        enableACME = mkDefault cfg.nginx.acme;
        locations."/" = {
          proxyPass = "http://127.0.0.1:${toString port}";
          proxyWebsockets = true;
          # Streams word by word, replies that think for minutes, pushes and debug files of gigabytes: the server has
          # limits of its own for all of them.
          extraConfig = ''
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 3600s;
            proxy_send_timeout 3600s;
            client_max_body_size 0;
          '';
        };
      };
    };

    networking.firewall.allowedTCPPorts = mkIf cfg.openFirewall (if cfg.nginx.enable then [ 80 443 ] else [ port ]);
  };
}
