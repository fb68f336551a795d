#!/usr/bin/env python3
"""Plays what can happen to an update, and looks at the state it ends in.

The program is the real one, with real git remotes, processes, signals and an HTTP server; only `nixos-rebuild`,
`nix-env` and a system's `switch-to-configuration` are played, by the scripts below. What they do is told by the
files of the commit that is deployed. Needs bash, git, curl, flock and Python, and no Nix.

    python3 deploy/nix/auto-update/test_scenarios.py [-k words]
"""

import concurrent.futures
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent / "loom-auto-update"
PATIENCE = 60

NIXOS_REBUILD = r"""#!/usr/bin/env bash
# nixos-rebuild build --flake CHECKOUT#HOST …: a system of the commit that is checked out.
set -eu
echo "build $*" >>"$PLAY/calls"
checkout=${3%%#*}
for argument; do case $argument in git+file://*) checkout=${argument#git+file://} ;; esac; done
revision=$(git -C "$checkout" rev-parse HEAD)
word() { cat "$checkout/$1" 2>/dev/null || echo "$2"; }
case $(word build ok) in
fail) echo "error: builder for loom-server failed" >&2; exit 1 ;;
full) echo "error: writing to file: No space left on device" >&2; exit 1 ;;
once) if [[ ! -e $PLAY/failed-once ]]; then touch "$PLAY/failed-once"; exit 1; fi ;;
hang) echo $$ >"$PLAY/building"; exec sleep 600 ;;
nothing) exit 0 ;;
esac
system=$PLAY/store/$(word system "$revision")
mkdir -p "$system.new/bin" "$system.new/etc/loom-server"
echo "$revision" >"$system.new/etc/loom-server/revision"
[[ $(word module yes) == yes ]] || rm "$system.new/etc/loom-server/revision"
word health ok >"$system.new/health"
word switch ok >"$system.new/switch"
cp "$PLAY/switch-to-configuration" "$system.new/bin/"
rm -rf "$system"
mv -T "$system.new" "$system"
ln -sfn "$system" result
"""

SWITCH = r"""#!/usr/bin/env bash
# switch-to-configuration switch: the server of this system is the one that runs.
set -eu
system=$(dirname "$(dirname "$(readlink -f "$0")")")
echo "switch $(basename "$system")" >>"$PLAY/calls"
manner=$(cat "$system/switch")
if [[ -e $PLAY/no-way-back && $(basename "$system") == first ]]; then exit 1; fi
case $manner in
fail) exit 4 ;;
hang) echo $$ >"$PLAY/switching"; exec sleep 600 ;;
slow)
    echo $$ >"$PLAY/switching"
    for ((i = 0; i < 1200; i++)); do if [[ -e $PLAY/go-on ]]; then break; fi; sleep 0.05; done
    ;;
esac
ln -sfn "$system" "$PLAY/current-system.new"
mv -T "$PLAY/current-system.new" "$PLAY/current-system"
"""

NIX_ENV = r"""#!/usr/bin/env bash
set -eu # --profile PROFILE --set SYSTEM
ln -sfn "$4" "$2.new"
mv -T "$2.new" "$2"
"""

# Stands for a command of the program: counts, and kills the program after the one it is told.
KILLER = r"""#!/usr/bin/env bash
n=$(($(cat "$PLAY/count") + 1))
echo "$n" >"$PLAY/count"
name=$(basename "$0")
status=0
"$PLAY/real/$name" "$@" || status=$?
if [[ $n == "$KILL_AT" ]]; then kill -KILL "$(cat "$PLAY/pid")"; fi
exit $status
"""
KILLED_AROUND = ["git", "curl", "mv", "sync", "rm", "nixos-rebuild", "nix-env"]


def play_script(path, text):
    path.write_text(text)
    path.chmod(0o755)


class Play:
    """A remote with a branch, a machine with a system on it, and the server that runs there."""

    def __init__(self, first=True, copy_of=None):
        self.dir = Path(tempfile.mkdtemp(prefix="loom-update-"))
        self.origin = self.dir / "origin.git"
        self.state = self.dir / "state"
        self.asked = []
        self.told = []
        self.on_ready = None
        self.deaf = False
        self.work = self.dir / "work"
        self.serve()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.dir),
            "GIT_CONFIG_GLOBAL": str(self.dir / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PLAY": str(self.dir),
            "LOOM_AUTO_UPDATE_STATE_DIR": str(self.state),
            "LOOM_AUTO_UPDATE_REPOSITORY": f"file://{self.origin}",
            "LOOM_AUTO_UPDATE_HOST": "machine",
            "LOOM_AUTO_UPDATE_NIXOS_REBUILD": str(self.dir / "nixos-rebuild"),
            "LOOM_AUTO_UPDATE_NIX_ENV": str(self.dir / "nix-env"),
            "LOOM_AUTO_UPDATE_PROFILE": str(self.dir / "profile"),
            "LOOM_AUTO_UPDATE_RUNNING_SYSTEM": str(self.dir / "current-system"),
            "LOOM_AUTO_UPDATE_STORE": str(self.dir / "store"),
            "LOOM_AUTO_UPDATE_MIN_FREE_MIB": "1",
            "LOOM_AUTO_UPDATE_HEALTH_URL": self.url,
            "LOOM_AUTO_UPDATE_HEALTH_SECS": "0.1",
            "LOOM_AUTO_UPDATE_HEALTH_TIMEOUT_SECS": "0.3",
            "LOOM_AUTO_UPDATE_HEALTH_POLL_SECS": "0.03",
        }
        if copy_of:
            shutil.copytree(copy_of.dir, self.dir, symlinks=True, dirs_exist_ok=True)
            for link in ["current-system", "profile"]:
                name = (self.dir / link).readlink().name
                (self.dir / link).unlink()
                (self.dir / link).symlink_to(self.dir / "store" / name)
            return
        for name, text in {
            "nixos-rebuild": NIXOS_REBUILD,
            "switch-to-configuration": SWITCH,
            "nix-env": NIX_ENV,
        }.items():
            play_script(self.dir / name, text)
        (self.dir / "store").mkdir()
        (self.dir / "calls").touch()
        (self.dir / "gitconfig").write_text(
            "[user]\nname = a\nemail = a@example.com\n[init]\ndefaultBranch = trunk\n[core]\nfsync = none\n"
        )
        self.git("init", "--quiet", "--bare", str(self.origin), at=self.dir)
        self.git("init", "--quiet", str(self.work), at=self.dir)
        self.git("remote", "add", "origin", str(self.origin))
        # What runs before the first update: not made by it.
        self.boot("first", health="ok")
        if first:
            self.good = self.push(text="one")
            self.run()
            assert self.deployed() == self.good, self.log

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- the server of the machine --------------------------------------------------------------------------------

    def serve(self):
        play = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                status, body = play.answer(self.path)
                self.reply(status, body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if play.deaf:
                    return self.reply(500, {})
                play.told.append(json.loads(body))
                self.reply(204, {})

            def reply(self, status, body):
                body = json.dumps(body).encode() if status != 204 else b""
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path):
        self.asked.append(path)
        system = (self.dir / "current-system").resolve()
        health = (system / "health").read_text().strip()
        if (self.dir / "database-down").exists():
            health = "down"
        if self.on_ready:
            self.on_ready()
        file = system / "etc/loom-server/revision"
        revision = file.read_text().strip() if file.exists() else system.name
        version = {"version": "0.1.0", "git_sha": revision, "built_at": "2026-01-01T00:00:00Z"}
        if path == "/health":
            # A provider is down: of no importance here.
            return 503, {"status": "unhealthy", "version": version}
        if health == "down" or (health == "flapping" and len(self.asked) % 3 == 0):
            return 503, {"title": "the database does not answer"}
        if health == "other":
            version["git_sha"] = "f" * 40
        return 200, version

    # --- the remote -------------------------------------------------------------------------------------------------

    def git(self, *arguments, at=None):
        return subprocess.run(
            ["git", *arguments], cwd=at or self.work, env=self.environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, **files):
        self.count = getattr(self, "count", 0) + 1
        for name in self.work.iterdir():
            if name.is_file():
                name.unlink()
        for name, text in {"count": str(self.count), **files}.items():
            (self.work / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a change")
        return self.git("rev-parse", "HEAD")

    def push(self, **files):
        revision = self.commit(**files)
        self.git("push", "--quiet", "--force", "origin", "HEAD:refs/heads/trunk")
        return revision

    def point(self, revision):
        self.git("push", "--quiet", "--force", "origin", f"{revision}:refs/heads/trunk")

    # --- the machine ------------------------------------------------------------------------------------------------

    def boot(self, name, health):
        system = self.dir / "store" / name
        (system / "bin").mkdir(parents=True)
        play_script(system / "bin/switch-to-configuration", SWITCH)
        (system / "etc/loom-server").mkdir(parents=True)
        (system / "etc/loom-server/revision").write_text("0" * 40 + "\n")
        (system / "health").write_text(health)
        (system / "switch").write_text("ok")
        for link in ["current-system", "profile"]:
            (self.dir / link).symlink_to(system)

    def start(self, *arguments, **settings):
        environment = {**self.environment, **{f"LOOM_AUTO_UPDATE_{k}": v for k, v in settings.items() if k.isupper()}}
        environment.update(settings.get("env", {}))
        # The process writes down who it is before it is the program.
        command = ["bash", "-c", 'echo $$ >"$PLAY/pid"; exec "$@"', "_", str(PROGRAM), *(arguments or ["run"])]
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def end(self, process):
        self.log, _ = process.communicate(timeout=PATIENCE)
        return process.returncode

    def run(self, *arguments, **settings):
        return self.end(self.start(*arguments, **settings))

    def wait_for(self, name):
        until = time.monotonic() + PATIENCE
        while not ((self.dir / name).exists() and (self.dir / name).read_text()):
            assert time.monotonic() < until, f"{name} did not come"
            time.sleep(0.01)

    def deployed(self):
        file = self.state / "deployed-revision"
        return file.read_text().strip() if file.is_file() else None

    def runs(self):
        """The revision that runs and the one that boots, which are the same in every safe state."""
        running = (self.dir / "current-system").resolve().name
        boots = (self.dir / "profile").resolve().name
        assert running == boots, f"{running} runs, {boots} would boot"
        return running

    def calls(self, what):
        return [line for line in (self.dir / "calls").read_text().splitlines() if line.startswith(what)]

    def bad(self):
        return [bad["revision"] for bad in self.status()["bad_revisions"]]

    def status(self):
        process = self.start("status", "--json")
        out, _ = process.communicate(timeout=PATIENCE)
        status = json.loads(out)
        status["exit"] = process.returncode
        return status


class Scenarios(unittest.TestCase):
    maxDiff = None

    def play(self, first=True):
        play = Play(first)
        self.addCleanup(play.close)
        return play

    def assert_rolled_back(self, play, bad, to=None):
        """The release before runs, the bad one is remembered and not tried again."""
        self.assertEqual(play.runs(), to or play.good, play.log)
        self.assertEqual(play.bad(), [bad], play.log)
        self.assertEqual(play.deployed(), play.good)
        self.assertFalse((play.state / "journal").exists())
        builds = len(play.calls("build"))
        self.assertEqual(play.run(), 0, play.log)
        self.assertEqual(len(play.calls("build")), builds, "it was tried again")
        self.assertEqual(play.status()["state"], "rolled-back")
        self.assertEqual(play.status()["exit"], 1)

    def assert_deployed(self, play, revision):
        self.assertEqual(play.runs(), revision, play.log)
        self.assertEqual(play.deployed(), revision, play.log)
        self.assertFalse((play.state / "journal").exists())
        self.assertEqual(play.status()["state"], "deployed")
        self.assertEqual(play.status()["exit"], 0)

    # --- releases that are well -------------------------------------------------------------------------------------

    def test_01_a_push_is_deployed(self):
        play = self.play()
        revision = play.push(text="two")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_02_nothing_new_touches_nothing(self):
        play = self.play()
        calls = play.calls("")
        self.assertEqual(play.run(), 0)
        self.assertEqual(play.calls(""), calls)
        self.assertEqual(play.log, "")

    def test_03_a_force_push_is_deployed(self):
        play = self.play()
        play.push(text="two")
        play.run()
        play.git("checkout", "--quiet", "--orphan", "other")
        revision = play.push(text="another history")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_04_a_force_push_back_to_the_release_before_is_deployed(self):
        play = self.play()
        play.push(text="two")
        play.run()
        play.point(play.good)
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, play.good)

    def test_05_a_dirty_checkout_is_reset(self):
        play = self.play()
        checkout = play.state / "checkout"
        (checkout / "text").write_text("edited by hand")
        (checkout / "health").write_text("down")
        revision = play.push(text="two")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)
        self.assertEqual(play.git("status", "--porcelain", at=checkout), "")

    def test_06_a_checkout_on_another_commit_is_brought_back(self):
        play = self.play()
        play.git("commit", "--quiet", "--allow-empty", "--message", "by hand", at=play.state / "checkout")
        self.assertEqual(play.run(), 0, play.log)
        self.assertEqual(play.git("rev-parse", "HEAD", at=play.state / "checkout"), play.good)
        self.assert_deployed(play, play.good)

    def test_07_a_broken_checkout_is_cloned_anew(self):
        play = self.play()
        shutil.rmtree(play.state / "checkout/.git/objects")
        (play.state / "checkout/.git/index.lock").touch()
        revision = play.push(text="two")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_08_two_timers_at_once_deploy_once(self):
        play = self.play()
        revision = play.push(text="two", switch="slow")
        one = play.start()
        play.wait_for("switching")
        self.assertEqual(play.run(), 0)
        self.assertIn("another run is at work", play.log)
        self.assertTrue(play.status()["working"])
        (play.dir / "go-on").touch()
        self.assertEqual(play.end(one), 0, play.log)
        self.assert_deployed(play, revision)
        self.assertEqual(len(play.calls(f"switch {revision}")), 1)

    def test_09_a_provider_that_is_down_rolls_nothing_back(self):
        play = self.play()
        revision = play.push(text="two")
        play.run()
        # /health says 503 all the time; only readiness was asked.
        self.assertEqual(set(play.asked), {"/health/ready"})
        self.assert_deployed(play, revision)

    def test_10_a_commit_that_changes_nothing_on_the_machine_is_not_switched_to(self):
        play = self.play()
        one = play.push(text="two", system="same")
        play.run()
        switches = len(play.calls("switch"))
        # Not even readiness is asked.
        (play.dir / "database-down").touch()
        revision = play.push(text="three", system="same")
        self.assertNotEqual(one, revision)
        self.assertEqual(play.run(), 0, play.log)
        self.assertEqual(play.deployed(), revision)
        self.assertEqual(len(play.calls("switch")), switches)

    def test_11_the_first_deployment_of_a_machine(self):
        play = self.play(first=False)
        revision = play.push(text="one")
        self.assertEqual(play.status()["state"], "new")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_12_a_lost_revision_file_deploys_the_head_once_more(self):
        play = self.play()
        for text in [None, "not a revision\n", ""]:
            file = play.state / "deployed-revision"
            file.unlink() if text is None else file.write_text(text)
            self.assertEqual(play.run(), 0, play.log)
            self.assert_deployed(play, play.good)

    def test_13_another_flake_takes_the_branch_as_its_input(self):
        play = self.play()
        revision = play.push(text="two")
        self.assertEqual(play.run(FLAKE="/etc/nixos", INPUT="loom"), 0, play.log)
        self.assert_deployed(play, revision)
        build = play.calls("build")[-1]
        self.assertIn("/etc/nixos#machine", build)
        self.assertIn(f"--override-input loom git+file://{play.state}/checkout --no-write-lock-file", build)
        self.assertIn("#machine --no-update-lock-file", play.calls("build")[0])

    def test_14_a_system_that_does_not_tell_its_revision_has_that_of_the_commit(self):
        play = self.play()
        revision = play.push(text="two", module="no")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    # --- releases that are not --------------------------------------------------------------------------------------

    def test_20_a_release_that_does_not_build_leaves_what_runs(self):
        play = self.play()
        revision = play.push(build="fail")
        self.assertEqual(play.run(), 1)
        self.assertEqual(play.runs(), play.good)
        self.assertEqual(play.deployed(), play.good)
        self.assertEqual(play.status()["state"], "build-failed")
        self.assertEqual(play.status()["retry"]["revision"], revision)
        # Not at every tick of the timer.
        play.run()
        self.assertEqual(len(play.calls("build")), 2)
        # The mended one at once.
        revision = play.push(text="mended")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_21_a_build_that_failed_by_chance_is_tried_again_later(self):
        play = self.play()
        revision = play.push(build="once")
        self.assertEqual(play.run(RETRY_FIRST_SECS="0"), 1)
        self.assertEqual(play.bad(), [])
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_22_a_build_that_hangs_is_given_up(self):
        play = self.play()
        play.push(build="hang")
        self.assertEqual(play.run(BUILD_TIMEOUT_SECS="0.3"), 1)
        self.assertEqual(play.runs(), play.good)
        self.assertEqual(play.status()["state"], "build-failed")

    def test_23_a_build_that_makes_no_system_is_a_failure(self):
        play = self.play()
        play.push(build="nothing")
        self.assertEqual(play.run(), 1)
        self.assertEqual(play.runs(), play.good)
        self.assertEqual(play.status()["state"], "build-failed")

    def test_24_an_unhealthy_release_is_rolled_back(self):
        play = self.play()
        revision = play.push(health="down")
        self.assertEqual(play.run(), 1)
        self.assert_rolled_back(play, revision)
        self.assertIn("503", play.status()["text"])

    def test_25_a_server_of_another_revision_is_rolled_back(self):
        play = self.play()
        revision = play.push(health="other")
        self.assertEqual(play.run(), 1)
        self.assert_rolled_back(play, revision)

    def test_26_a_release_that_is_well_only_now_and_then_is_rolled_back(self):
        play = self.play()
        revision = play.push(health="flapping")
        self.assertEqual(play.run(HEALTH_SECS="0.5"), 1)
        # The last one was well for long enough, and so is it now.
        self.assert_rolled_back(play, revision)

    def test_27_a_switch_that_fails_is_rolled_back(self):
        play = self.play()
        revision = play.push(switch="fail")
        self.assertEqual(play.run(), 1)
        self.assert_rolled_back(play, revision)

    def test_28_a_switch_that_hangs_is_rolled_back(self):
        play = self.play()
        revision = play.push(switch="hang")
        self.assertEqual(play.run(SWITCH_TIMEOUT_SECS="3"), 1)
        self.assert_rolled_back(play, revision)

    def test_29_a_bad_revision_pushed_again_is_held_back(self):
        play = self.play()
        bad = play.push(health="down")
        play.run()
        mended = play.push(text="mended")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, mended)
        play.point(bad)
        self.assertEqual(play.run(), 0, play.log)
        self.assertEqual(play.runs(), mended)
        self.assertEqual(play.status()["state"], "held")

    def test_30_a_bad_revision_that_is_forgotten_is_tried_again(self):
        play = self.play()
        # What was wrong was not in the commit.
        play.environment["LOOM_AUTO_UPDATE_HEALTH_URL"] = "http://127.0.0.1:9"
        shutil.rmtree(play.dir / "store/first")
        revision = play.push(text="two")
        (play.dir / "store" / play.good / "etc/loom-server/revision").unlink()
        self.assertEqual(play.run(), 1)
        self.assertEqual(play.bad(), [revision])
        play.environment["LOOM_AUTO_UPDATE_HEALTH_URL"] = play.url
        self.assertEqual(play.run("forget", revision), 0, play.log)
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_31_a_database_that_is_down_blames_no_release(self):
        play = self.play()
        revision = play.push(text="two")
        (play.dir / "database-down").touch()
        self.assertEqual(play.run(RETRY_FIRST_SECS="0"), 1)
        self.assertEqual(play.runs(), play.good)
        self.assertEqual(play.bad(), [])
        self.assertEqual(play.status()["state"], "not-blamed")
        (play.dir / "database-down").unlink()
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_32_a_rollback_that_fails_is_tried_again_and_then_told(self):
        play = self.play(first=False)
        (play.dir / "no-way-back").touch()
        bad = play.push(health="down")
        for _ in range(3):
            self.assertEqual(play.run(), 1)
        self.assertEqual(play.bad(), [bad])
        self.assertEqual(play.status()["state"], "rollback-failed")
        self.assertEqual(len(play.calls("switch first")), 3)
        # Then nothing more, until somebody pushes what is well.
        self.assertEqual(play.run(), 0)
        self.assertEqual(len(play.calls("switch first")), 3)
        mended = play.push(text="mended")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, mended)

    def test_33_after_a_failed_rollback_the_way_back_is_still_to_the_last_good_system(self):
        play = self.play(first=False)
        (play.dir / "no-way-back").touch()
        play.push(health="down")
        for _ in range(3):
            play.run()
        (play.dir / "no-way-back").unlink()
        play.push(health="other")
        self.assertEqual(play.run(), 1)
        self.assertEqual(play.runs(), "first")
        self.assertEqual(len(play.bad()), 2)

    def test_34_a_rollback_to_a_system_that_is_gone_is_told(self):
        play = self.play()
        good = play.dir / "store" / play.good
        play.on_ready = lambda: shutil.rmtree(good, ignore_errors=True)
        play.push(health="down")
        for _ in range(3):
            self.assertEqual(play.run(), 1)
        self.assertEqual(play.status()["state"], "rollback-failed")

    def test_35_without_a_system_to_go_back_to_nothing_is_switched(self):
        play = self.play()
        (play.dir / "store" / play.good / "bin/switch-to-configuration").unlink()
        play.push(text="two")
        self.assertEqual(play.run(), 1)
        self.assertEqual(play.runs(), play.good)
        self.assertEqual(play.status()["state"], "no-way-back")

    # --- the world around -------------------------------------------------------------------------------------------

    def test_40_a_lost_network_changes_nothing(self):
        play = self.play()
        play.origin.rename(play.dir / "away.git")
        self.assertEqual(play.run(), 0)
        self.assertEqual(play.status()["state"], "unreachable")
        self.assertEqual(play.runs(), play.good)
        # Said once.
        self.assertEqual(play.run(), 0)
        self.assertEqual(play.log, "")
        (play.dir / "away.git").rename(play.origin)
        self.assertEqual(play.run(), 0)
        self.assert_deployed(play, play.good)

    def test_41_a_network_that_goes_while_it_fetches_changes_nothing(self):
        play = self.play()
        revision = play.push(text="two")
        tools = play.dir / "tools"
        tools.mkdir()
        git = shutil.which("git")
        play_script(
            tools / "git",
            f'#!/usr/bin/env bash\ncase " $* " in *" fetch "*|*" clone "*) echo "fatal: early EOF" >&2; exit 128 ;; esac\nexec {git} "$@"\n',
        )
        self.assertEqual(play.run(env={"PATH": f"{tools}:{os.environ['PATH']}"}), 0)
        self.assertEqual(play.status()["state"], "unreachable")
        self.assertIn("early EOF", play.status()["text"])
        self.assertEqual(play.runs(), play.good)
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_42_a_network_that_hangs_is_given_up(self):
        play = self.play()
        tools = play.dir / "tools"
        tools.mkdir()
        play_script(tools / "git", "#!/usr/bin/env bash\nexec sleep 600\n")
        self.assertEqual(play.run(FETCH_TIMEOUT_SECS="0.2", env={"PATH": f"{tools}:{os.environ['PATH']}"}), 0)
        self.assertEqual(play.status()["state"], "unreachable")
        self.assertEqual(play.runs(), play.good)

    def test_43_a_branch_that_is_missing_leaves_what_runs(self):
        play = self.play()
        self.assertEqual(play.run(BRANCH="no-such"), 1)
        self.assertEqual(play.status()["state"], "branch-missing")
        self.assertEqual(play.runs(), play.good)

    def test_44_a_disk_that_is_nearly_full_begins_nothing(self):
        play = self.play()
        revision = play.push(text="two")
        builds = len(play.calls("build"))
        self.assertEqual(play.run(MIN_FREE_MIB="999999999"), 1)
        self.assertEqual(len(play.calls("build")), builds)
        self.assertEqual(play.status()["state"], "disk-full")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_45_a_disk_that_fills_while_it_builds_leaves_what_runs(self):
        play = self.play()
        play.push(build="full")
        self.assertEqual(play.run(), 1)
        self.assertEqual(play.runs(), play.good)
        self.assertEqual(play.bad(), [])

    def full_disk(self, play, name):
        """From now on the file `name` of the state cannot be written."""
        tools = play.dir / "tools"
        tools.mkdir()
        mktemp = shutil.which("mktemp")
        play_script(
            tools / "mktemp",
            f'#!/usr/bin/env bash\ncase $* in */.{name}.*) echo /dev/full ;; *) exec {mktemp} "$@" ;; esac\n',
        )
        # /dev/full is nothing to be removed by a test that runs as root.
        rm = shutil.which("rm")
        play_script(tools / "rm", f'#!/usr/bin/env bash\ncase "$*" in *"/dev/full"*) ;; *) exec {rm} "$@" ;; esac\n')
        return {"PATH": f"{tools}:{os.environ['PATH']}"}

    def test_46_without_a_journal_nothing_is_switched(self):
        play = self.play()
        revision = play.push(text="two")
        self.assertEqual(play.run(env=self.full_disk(play, "journal")), 1)
        self.assertEqual(play.runs(), play.good)
        self.assertEqual(play.calls(f"switch {revision}"), [])
        self.assertEqual(play.status()["state"], "state-unwritable")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_47_a_release_that_cannot_be_recorded_is_recorded_later(self):
        play = self.play()
        revision = play.push(text="two")
        self.assertEqual(play.run(env=self.full_disk(play, "deployed-revision")), 1)
        self.assertEqual(play.runs(), revision)
        self.assertEqual(play.deployed(), play.good)
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)
        self.assertEqual(len(play.calls(f"switch {revision}")), 1)

    def test_48_a_list_of_bad_revisions_that_cannot_be_read_stops_everything(self):
        play = self.play()
        (play.state / "bad-revisions").mkdir()
        play.push(text="two")
        self.assertEqual(play.run(), 1)
        self.assertEqual(play.runs(), play.good)
        self.assertEqual(play.status()["state"], "state-unreadable")

    def test_49_a_journal_that_cannot_be_read_is_put_aside(self):
        play = self.play()
        revision = play.push(text="two")
        for text in ["rubbish", "checking", "switching x y z w"]:
            (play.state / "journal").write_text(text)
            self.assertEqual(play.run(), 0, play.log)
            self.assert_deployed(play, revision)

    def test_50_a_clock_that_was_set_back_delays_nothing(self):
        play = self.play()
        revision = play.push(build="once")
        self.assertEqual(play.run(), 1)
        file = play.state / "retry"
        words = file.read_text().split()
        file.write_text(f"{words[0]} {words[1]} {int(time.time()) + 86400 * 365}\n")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_51_failures_in_a_row_are_tried_ever_more_seldom(self):
        play = self.play()
        play.push(build="fail")
        waits = []
        for _ in range(4):
            before = int(time.time())
            self.assertEqual(play.run(RETRY_MOST_SECS="200"), 1)
            words = (play.state / "retry").read_text().split()
            waits.append(int(words[2]) - before)
            (play.state / "retry").write_text(f"{words[0]} {words[1]} 0\n")
        for wait, wanted in zip(waits, [60, 120, 200, 200]):
            self.assertTrue(wanted <= wait <= wanted + PATIENCE, waits)

    # --- stopped and killed -----------------------------------------------------------------------------------------

    def test_60_sigterm_while_it_builds_ends_the_build(self):
        play = self.play()
        play.push(build="hang")
        process = play.start()
        play.wait_for("building")
        process.terminate()
        self.assertEqual(play.end(process), 0, play.log)
        builder = (play.dir / "building").read_text().strip()
        self.assertFalse(Path(f"/proc/{builder}").exists())
        self.assertEqual(play.runs(), play.good)
        # Nobody's fault.
        self.assertFalse((play.state / "retry").exists())

    def test_61_sigterm_while_it_switches_lets_the_switch_end(self):
        play = self.play()
        revision = play.push(switch="slow")
        process = play.start()
        play.wait_for("switching")
        process.terminate()
        (play.dir / "go-on").touch()
        self.assertEqual(play.end(process), 0, play.log)
        self.assertEqual(play.runs(), revision)
        self.assertEqual(play.deployed(), play.good)
        self.assertEqual(play.status()["phase"], "checking")
        self.assertEqual(play.run(), 0, play.log)
        self.assert_deployed(play, revision)

    def test_62_sigterm_while_it_looks_is_taken_up_at_the_next_run(self):
        play = self.play()
        revision = play.push(health="down")
        asked = threading.Event()
        play.on_ready = asked.set
        process = play.start(HEALTH_TIMEOUT_SECS="600")
        self.assertTrue(asked.wait(PATIENCE))
        process.terminate()
        self.assertEqual(play.end(process), 0, play.log)
        self.assertEqual(play.status()["phase"], "checking")
        self.assertEqual(play.run(), 1)
        self.assert_rolled_back(play, revision)

    def kill_at_every_step(self, prepare, settled):
        """Plays the same once for each command that the program runs, killed when that has ended."""
        tools, real = self.original.dir / "tools", self.original.dir / "real"
        revision = prepare(self.original)
        tools.mkdir()
        real.mkdir()
        for name in KILLED_AROUND:
            there = self.original.dir / name
            (real / name).symlink_to(Path("..", name) if there.exists() else shutil.which(name))
            play_script(tools / name, KILLER)
        (self.original.dir / "count").write_text("0")

        def once(step):
            play = Play(copy_of=self.original)
            try:
                settings = {
                    "env": {"PATH": f"{play.dir}/tools:{os.environ['PATH']}", "KILL_AT": str(step)},
                    "NIXOS_REBUILD": f"{play.dir}/tools/nixos-rebuild",
                    "NIX_ENV": f"{play.dir}/tools/nix-env",
                }
                status = play.run(**settings)
                steps = int((play.dir / "count").read_text())
                log = play.log
                # A run that was not killed had fewer steps: readiness is asked as often as there is time.
                for _ in range(3 if status == -signal.SIGKILL else 0):
                    if settled(play, revision):
                        break
                    play.run()
                    log += play.log
                self.assertTrue(settled(play, revision), f"killed after step {step} it came to {play.status()}\n{log}")
                return status == -signal.SIGKILL, steps
            finally:
                play.close()

        _, steps = once(0)
        self.assertGreater(steps, 20)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            killed = [killed for killed, _ in pool.map(once, range(1, steps + 1))]
        self.assertGreater(sum(killed), steps * 0.7, "hardly any of the runs was killed")

    def test_63_killed_at_any_step_a_good_release_is_deployed_in_the_end(self):
        self.original = self.play()

        def settled(play, revision):
            return not (play.state / "journal").exists() and (play.deployed(), play.runs(), play.bad()) == (revision, revision, [])

        self.kill_at_every_step(lambda play: play.push(text="two"), settled)

    def test_64_killed_at_any_step_a_bad_release_is_rolled_back_in_the_end(self):
        self.original = self.play()
        good = self.original.good

        def settled(play, revision):
            return not (play.state / "journal").exists() and (play.deployed(), play.runs(), play.bad()) == (good, good, [revision])

        self.kill_at_every_step(lambda play: play.push(health="down"), settled)

    def test_65_a_release_that_takes_the_machine_down_each_time_is_rolled_back(self):
        play = self.play()
        revision = play.push(health="down")

        def power_off():
            os.kill(int((play.dir / "pid").read_text()), signal.SIGKILL)

        asked = threading.Event()
        play.on_ready = asked.set
        for _ in range(4):
            asked.clear()
            process = play.start(HEALTH_TIMEOUT_SECS="600")
            self.assertTrue(asked.wait(PATIENCE))
            power_off()
            play.end(process)
        play.on_ready = None
        self.assertEqual(play.run(HEALTH_TIMEOUT_SECS="600"), 1)
        self.assert_rolled_back(play, revision)

    # --- those who are told -----------------------------------------------------------------------------------------

    def test_70_a_rollback_is_told_once_by_webhook_and_mail(self):
        play = self.play()
        (play.dir / "webhook").write_text(play.url + "/hook?token=secret\n")
        play_script(play.dir / "sendmail", '#!/usr/bin/env bash\ncat >>"$PLAY/mail"\n')
        settings = {"WEBHOOK_URL_FILE": str(play.dir / "webhook"), "MAIL_TO": "ops@example.com", "SENDMAIL": str(play.dir / "sendmail")}
        bad = play.push(health="down")
        play.run(**settings)
        self.assertNotIn("secret", play.log)
        play.run(**settings)
        self.assertEqual([(told["event"], told["revision"]) for told in play.told], [("rolled-back", bad)])
        self.assertEqual(play.told[0]["deployed"], play.good)
        mail = (play.dir / "mail").read_text()
        self.assertEqual(mail.count("To: ops@example.com"), 1)
        # And that it is over.
        mended = play.push(text="mended")
        play.run(**settings)
        self.assertEqual([(told["event"], told["revision"]) for told in play.told][1:], [("deployed", mended)])

    def test_71_an_alert_that_nobody_took_is_told_later(self):
        play = self.play()
        (play.dir / "webhook").write_text(play.url + "/hook\n")
        play.environment["LOOM_AUTO_UPDATE_WEBHOOK_URL_FILE"] = str(play.dir / "webhook")
        play.deaf = True
        bad = play.push(health="down")
        self.assertEqual(play.run(), 1)
        self.assert_rolled_back(play, bad)
        play.deaf = False
        play.run()
        play.run()
        self.assertEqual([told["event"] for told in play.told], ["rolled-back"])

    def test_72_a_remote_that_stays_away_is_told_after_a_while(self):
        play = self.play()
        (play.dir / "webhook").write_text(play.url + "/hook\n")
        settings = {"WEBHOOK_URL_FILE": str(play.dir / "webhook")}
        play.origin.rename(play.dir / "away.git")
        play.run(**settings)
        play.run(**settings)
        self.assertEqual(play.told, [])
        for _ in range(2):
            play.run(ALERT_AFTER_SECS="0", **settings)
        self.assertEqual([told["event"] for told in play.told], ["unreachable"])
        (play.dir / "away.git").rename(play.origin)
        play.run(**settings)
        self.assertEqual([told["event"] for told in play.told], ["unreachable", "deployed"])

    # --- commands ---------------------------------------------------------------------------------------------------

    def test_80_the_status_tells_people_what_is_the_matter(self):
        play = self.play()
        bad = play.push(health="down")
        play.run()
        self.assertEqual(play.run("status"), 1)
        for words in ["rolled-back, since 20", f"Deployed:  {play.good}", f"Held back: {bad} 20", "trunk of file://"]:
            self.assertIn(words, play.log)

    def test_81_a_password_in_the_address_is_shown_nowhere(self):
        play = self.play()
        settings = {"REPOSITORY": "http://me:password@127.0.0.1:9/x.git"}
        self.assertEqual(play.run(**settings), 0)
        seen = play.log
        play.run("status", **settings)
        self.assertNotIn("password", seen + play.log + (play.state / "outcome").read_text())

    def test_82_wrong_settings_are_refused_before_anything_is_done(self):
        play = self.play()
        play.push(text="two")
        calls = play.calls("")
        for settings in [{"REPOSITORY": ""}, {"BRANCH": "--upload-pack=x"}, {"HEALTH_SECS": "soon"}, {"INPUT": "loom"}]:
            self.assertEqual(play.run(**settings), 78, play.log)
        self.assertEqual(play.calls(""), calls)
        self.assertEqual(play.run("forget", "abc"), 78)
        self.assertEqual(play.run("deploy"), 64)
        self.assertEqual(play.run("--help"), 0)


def main():
    """Scenarios run side by side: nearly all of their time is waiting for processes."""
    pattern = re.compile(sys.argv[2] if sys.argv[1:2] == ["-k"] else "")
    tests = [test for test in unittest.defaultTestLoader.loadTestsFromTestCase(Scenarios) if pattern.search(test.id())]
    begun = time.monotonic()

    def one(test):
        started, result = time.monotonic(), unittest.TestResult()
        test.run(result)
        return test.id().split(".")[-1], result, time.monotonic() - started

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, result, took in pool.map(one, tests):
            wrong = result.failures + result.errors
            failed += bool(wrong)
            print(f"{'FAILED' if wrong else 'ok':6} {took:6.2f} s  {name[5:].replace('_', ' ')}")
            for _, text in wrong:
                print(text)
    print(f"{len(tests)} scenarios, {failed} failed, in {time.monotonic() - begun:.1f} s")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
