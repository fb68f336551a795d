# Both modules on a machine that is really one: systemd, PostgreSQL, the server, switches and the way back.
#
#   nix build .#checks.x86_64-linux.nixos -L
#
# Only `nixos-rebuild build` is played: there is no network in here to build by. What it would build are the
# specialisations of the machine, named by the commit that is checked out.
self:
{ lib, pkgs, ... }:
let
  # A fixed one, so that the test is the same in a tree with changes.
  revision = "1111111111111111111111111111111111111111";
  package = self.packages.${pkgs.stdenv.hostPlatform.system}.default.override { inherit revision; };
in
{
  name = "loom";

  nodes.machine =
    { config, pkgs, ... }:
    {
      imports = [ self.nixosModules.default ];
      virtualisation.memorySize = 2048;
      virtualisation.diskSize = 4096;
      environment.systemPackages = [ pkgs.curl pkgs.git pkgs.jq ];

      services.loom-server = {
        enable = true;
        inherit package;
        database.createLocally = true;
        secrets.LOOM_SERVER_MASTER_KEY = "/etc/master-key";
        settings.health.healthDiskFreeMib = 0;
      };
      # Secrets of a test lie in the store.
      environment.etc."master-key" = {
        text = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        mode = "0400";
      };

      services.loom-auto-update = {
        enable = true;
        repository = "file:///srv/loom.git";
        interval = 2;
        healthSecs = 3;
        healthTimeoutSecs = 60;
        minFreeMiB = 1;
        nixosRebuild = toString (
          pkgs.writeShellScript "nixos-rebuild" ''
            base=$(readlink -f /run/booted-system)
            ln -sfn "$base/specialisation/$(cat /var/lib/loom-auto-update/checkout/specialisation)" result
          ''
        );
      };

      specialisation = {
        good.configuration = {
          environment.etc."which".text = "good";
          # Another unit, so that the server is replaced.
          services.loom-server.settings.log.logLevel = "debug";
        };
        bad.configuration = {
          environment.etc."which".text = "bad";
          systemd.services.loom-server.serviceConfig.ExecStart = lib.mkForce "${pkgs.coreutils}/bin/false";
        };
      };
    };

  testScript = ''
    import json


    def push(specialisation):
        machine.succeed(
            f"cd /root/work && echo {specialisation} >specialisation && git add . && git commit -qm {specialisation} --allow-empty && git push -q origin HEAD:trunk"
        )
        return machine.succeed("git -C /root/work rev-parse HEAD").strip()


    def status():
        return json.loads(machine.execute("loom-auto-update status --json")[1])


    def until(state, revision):
        machine.wait_until_succeeds(
            f"loom-auto-update status --json | jq -e '.state == \"{state}\" and .revision == \"{revision}\" and (.working | not)'",
            timeout=180,
        )


    machine.wait_for_unit("loom-server.service")

    with subtest("the server is ready when systemd says so, with its revision"):
        ready = json.loads(machine.succeed("curl -sf http://127.0.0.1:8080/health/ready"))
        assert ready["git_sha"] == "${revision}", ready
        assert machine.succeed("cat /etc/loom-server/revision").strip() == "${revision}"

    with subtest("it is its own user, and can write nowhere but to its state"):
        pid = machine.succeed("systemctl show -p MainPID --value loom-server").strip()
        assert machine.succeed(f"stat -c %U /proc/{pid}").strip() == "loom"
        machine.fail(f"nsenter -t {pid} -m setpriv --reuid loom --clear-groups touch /etc/x")
        print(machine.succeed("systemd-analyze security loom-server --threshold=25"))

    with subtest("a secret is in no environment"):
        machine.fail(f"grep -z MDEy /proc/{pid}/environ")

    with subtest("the command line has the server's settings"):
        machine.succeed("loom-server admin create you@example.com")
        machine.succeed("install -d -o loom -m 700 /backups && loom-server backup /backups/one")

    with subtest("the database is this machine's, and a kill is survived"):
        machine.succeed("sudo -u postgres psql loom -c 'select 1 from _sqlx_migrations limit 1'")
        machine.succeed(f"kill -KILL {pid}")
        machine.wait_until_succeeds("curl -sf http://127.0.0.1:8080/health/ready", timeout=60)

    machine.succeed(
        "git config --global user.email a@example.com && git config --global user.name a && git init -q --bare /srv/loom.git && git init -q /root/work && git -C /root/work remote add origin /srv/loom.git"
    )

    with subtest("a push is deployed, and nobody is refused meanwhile"):
        machine.succeed(
            "systemd-run --unit=asks -E PATH=\"$PATH\" bash -c 'while sleep 0.05; do curl -sf -m 60 http://127.0.0.1:8080/health/live || echo refused >>/tmp/refused; done'"
        )
        good = push("good")
        until("deployed", good)
        assert machine.succeed("cat /etc/which") == "good"
        machine.succeed("systemctl stop asks")
        machine.fail("test -e /tmp/refused")

    with subtest("a release that does not start is rolled back and remembered"):
        bad = push("bad")
        until("rolled-back", bad)
        assert machine.succeed("cat /etc/which") == "good"
        machine.wait_until_succeeds("curl -sf http://127.0.0.1:8080/health/ready", timeout=60)
        assert [held["revision"] for held in status()["bad_revisions"]] == [bad]

    with subtest("what is pushed next is deployed"):
        mended = push("good")
        until("deployed", mended)

    with subtest("the server is let end"):
        machine.succeed("systemctl stop loom-server")
        assert machine.succeed("systemctl show -p Result --value loom-server").strip() == "success"
  '';
}
