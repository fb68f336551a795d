# The program as it is, with what it calls. nixos-rebuild and nix are those of the machine.
{
  lib,
  stdenvNoCC,
  makeWrapper,
  bash,
  coreutils,
  curl,
  git,
  gnugrep,
  gnused,
  util-linux,
}:
stdenvNoCC.mkDerivation {
  name = "loom-auto-update";
  src = ./loom-auto-update;
  dontUnpack = true;
  nativeBuildInputs = [ makeWrapper ];
  buildInputs = [ bash ];
  installPhase = ''
    runHook preInstall
    install -D $src $out/bin/loom-auto-update
    patchShebangs $out/bin
    wrapProgram $out/bin/loom-auto-update --prefix PATH : ${
      lib.makeBinPath [ coreutils curl git gnugrep gnused util-linux ]
    }
    runHook postInstall
  '';
  meta = {
    description = "Brings a machine to the head of a branch, and back when it is not well";
    license = lib.licenses.asl20;
    mainProgram = "loom-auto-update";
  };
}
