# The dashboard, as the server embeds it. npm's packages come by the hashes of package-lock.json, so no hash of ours
# has to follow it.
{
  lib,
  buildNpmPackage,
  importNpmLock,
}:
let
  root = ../..;
  npmRoot = root + "/crates/dashboard/ui";
  lock = lib.importJSON (npmRoot + "/package-lock.json");

  # The lock file names no registry, see .npmrc. The hash, not the address, says what a package is.
  address =
    path: package:
    let
      name = package.name or (lib.last (lib.splitString "node_modules/" path));
    in
    "mirror://npm/${name}/-/${baseNameOf name}-${package.version}.tgz";
  resolved =
    path: package:
    package // lib.optionalAttrs (package ? integrity && !(package ? resolved)) { resolved = address path package; };
in
buildNpmPackage {
  pname = "loom-dashboard";
  version = (lib.importTOML (root + "/Cargo.toml")).workspace.package.version;

  # Its client is made of the API's document.
  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.difference (lib.fileset.unions [ npmRoot (root + "/docs/openapi.json") ]) (
      lib.fileset.unions [
        (lib.fileset.maybeMissing (npmRoot + "/dist"))
        (lib.fileset.maybeMissing (npmRoot + "/node_modules"))
      ]
    );
  };
  sourceRoot = "source/crates/dashboard/ui";

  npmDeps = importNpmLock {
    inherit npmRoot;
    packageLock = lock // { packages = lib.mapAttrs resolved lock.packages; };
  };
  inherit (importNpmLock) npmConfigHook;

  installPhase = ''
    runHook preInstall
    cp -r dist $out
    runHook postInstall
  '';

  meta.license = lib.licenses.asl20;
}
