# The scenarios of the auto-update, as `.ci/run` plays them.
{
  runCommand,
  bash,
  curl,
  git,
  python3,
  shellcheck,
  util-linux,
}:
runCommand "loom-auto-update-scenarios"
  {
    nativeBuildInputs = [ bash curl git python3 shellcheck util-linux ];
  }
  ''
    cp ${./loom-auto-update} loom-auto-update
    cp ${./test_scenarios.py} test_scenarios.py
    chmod +x loom-auto-update
    patchShebangs .
    shellcheck loom-auto-update
    python3 test_scenarios.py
    touch $out
  ''
