# The settings of the server, read from .env.example: a test of the server holds that file to what the code reads, so
# the options of the module cannot be others than the server's.
{ lib }:
let
  inherit (builtins) match elemAt;

  camel =
    words:
    let
      capital = word: lib.toUpper (builtins.substring 0 1 word) + builtins.substring 1 (-1) word;
      low = map lib.toLower words;
    in
    lib.concatStrings ([ (builtins.head low) ] ++ map capital (builtins.tail low));

  # "Artifacts of projects: …" is artifactsOfProjects, and LOOM_SERVER_BASE_URL is baseUrl.
  groupOf =
    title:
    camel (lib.filter (word: word != "") (lib.splitString " " (lib.replaceStrings [ "-" ] [ " " ] (builtins.head (lib.splitString ":" title)))));
  optionOf = name: camel (lib.splitString "_" (lib.removePrefix "LOOM_SERVER_" name));

  read =
    state: line:
    let
      title = match "# --- (.*[^ -]) -+" line;
      setting = match "#([A-Z][A-Z0-9_]*)=(.*)" line;
      prose = match "# (.*)" line;
    in
    if line == "" then
      state // { prose = [ ]; }
    else if title != null then
      state // { title = builtins.head title; prose = [ ]; }
    # Names of one's own, which `environment` takes.
    else if lib.hasPrefix "Example" state.title then
      state
    else if setting != null then
      state
      // {
        prose = [ ];
        settings = state.settings ++ [
          rec {
            name = elemAt setting 0;
            default = elemAt setting 1;
            description = lib.concatStringsSep " " state.prose;
            group = groupOf state.title;
            option = optionOf name;
            secret = lib.hasInfix "A secret." description;
          }
        ];
      }
    else if prose != null then
      state // { prose = state.prose ++ prose; }
    else
      state;

  inherit
    (lib.foldl' read {
      title = "";
      prose = [ ];
      settings = [ ];
    } (lib.splitString "\n" (builtins.readFile ../../.env.example)))
    settings
    ;

  types = lib.types;
  typeOf =
    { default, description, ... }:
    if default == "true" || default == "false" then
      types.bool
    else if match "[0-9]+(\\.[0-9]+)?" default != null then
      types.numbers.nonnegative
    else if lib.hasInfix "separated by commas" description then
      types.coercedTo (types.listOf types.str) (lib.concatStringsSep ",") types.str
    else
      types.str;
in
{
  inherit settings;

  # Those that may lie in the store, by group.
  options = lib.mapAttrs (
    _: group:
    lib.listToAttrs (
      map (setting: {
        name = setting.option;
        value = lib.mkOption {
          type = types.nullOr (typeOf setting);
          default = null;
          description = "${setting.description} `${setting.name}`; the server's default is ${
            if setting.default == "" then "empty" else "`${setting.default}`"
          }.";
        };
      }) group
    )
  ) (lib.groupBy (setting: setting.group) (lib.filter (setting: !setting.secret) settings));

  secrets = map (setting: setting.name) (lib.filter (setting: setting.secret) settings);

  # The environment that values of these options come to.
  environment =
    values:
    let
      text = value: if lib.isBool value then lib.boolToString value else toString value;
      given = lib.filter (setting: !setting.secret && values.${setting.group}.${setting.option} != null) settings;
    in
    lib.listToAttrs (
      map (setting: {
        inherit (setting) name;
        value = text values.${setting.group}.${setting.option};
      }) given
    );
}
