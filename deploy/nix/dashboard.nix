# The dashboard, as the server embeds it. npm's packages come by the hashes of package-lock.json, so no hash of ours
# has to follow it.
{
  lib,
  buildNpmPackage,
  cacert,
  importNpmLock,
  nodejs,
  runCommand,
}:
let
  root = ../..;
  npmRoot = root + "/crates/dashboard/ui";
  lock = lib.importJSON (npmRoot + "/package-lock.json");

  # The lock file names no registry, see .npmrc, so npm itself finds each package, at its own or at the one that
  # NPM_CONFIG_REGISTRY names. What it is, says the hash in the lock file.
  tarball =
    path: package:
    let
      name = package.name or (lib.last (lib.splitString "node_modules/" path));
    in
    runCommand "${baseNameOf name}-${package.version}.tgz"
      {
        nativeBuildInputs = [ nodejs ];
        NODE_EXTRA_CA_CERTS = "${cacert}/etc/ssl/certs/ca-bundle.crt";
        impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [ "NPM_CONFIG_REGISTRY" ];
        outputHashMode = "flat";
        outputHash = package.integrity;
        preferLocalBuild = true;
      }
      ''
        HOME=$PWD npm pack --ignore-scripts ${name}@${package.version}
        mv *.tgz $out
      '';
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
    packageLock = lock;
    packageSourceOverrides = lib.mapAttrs tarball (lib.filterAttrs (_: package: package ? integrity) lock.packages);
  };
  inherit (importNpmLock) npmConfigHook;

  installPhase = ''
    runHook preInstall
    cp -r dist $out
    runHook postInstall
  '';

  meta.license = lib.licenses.asl20;
}
