# As much of nixpkgs' lib as this folder uses, for where there is no nixpkgs: names, arguments and the merging of
# modules are checked, not that anything builds.
let
  inherit (builtins)
    all attrNames concatLists concatMap elem elemAt filter foldl' fromJSON fromTOML genList head isAttrs isBool isFloat
    isFunction isInt isList isString length listToAttrs mapAttrs match readFile replaceStrings split stringLength
    substring tail
    ;

  lib = rec {
    inherit (builtins) attrNames concatStringsSep elem filter foldl' groupBy head isBool listToAttrs mapAttrs replaceStrings;

    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    nameValuePair = name: value: { inherit name value; };
    optional = condition: value: if condition then [ value ] else [ ];
    optionalAttrs = condition: value: if condition then value else { };
    mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    filterAttrs = keep: set: listToAttrs (concatMap (name: optional (keep name set.${name}) (nameValuePair name set.${name})) (attrNames set));
    intersectLists = one: two: filter (x: elem x one) two;
    last = list: elemAt list (length list - 1);
    concatStrings = concatStringsSep "";
    splitString = separator: text: filter isString (split (escapeRegex separator) text);
    escapeRegex = let special = [ "\\" "." "+" "*" "?" "[" "{" "(" ")" "^" "$" "|" ]; in replaceStrings special (map (one: "\\${one}") special);
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasInfix = infix: text: length (splitString infix text) > 1;
    removePrefix = prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
    boolToString = value: if value then "true" else "false";
    escapeShellArg = text: "'${replaceStrings [ "'" ] [ "'\\''" ] text}'";
    letters = low: genList (i: substring i 1 low) 26;
    toLower = replaceStrings (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (letters "abcdefghijklmnopqrstuvwxyz");
    toUpper = replaceStrings (letters "abcdefghijklmnopqrstuvwxyz") (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    importTOML = path: fromTOML (readFile path);
    importJSON = path: fromJSON (readFile path);
    getExe = package: "${package}/bin/${package.meta.mainProgram}";
    makeBinPath = packages: concatStringsSep ":" (map (package: "${package}/bin") packages);
    licenses.asl20.spdxId = "Apache-2.0";
    fetchers.proxyImpureEnvVars = [ ];
    literalExpression = text: { _type = "literalExpression"; inherit text; };

    # Every path that is named must be there.
    fileset = rec {
      there = path: if isList path then all there path else builtins.pathExists path || throw "${toString path} is not there";
      unions = paths: paths;
      maybeMissing = path: builtins.seq (toString path) [ ];
      difference = one: two: [ one two ];
      toSource = { root, fileset }: assert there root && there fileset; root;
    };

    mkOption = option: option // { _type = "option"; };
    mkEnableOption = text: mkOption { type = types.bool; default = false; description = "Whether to enable ${text}."; };
    mkIf = condition: content: { _type = "if"; inherit condition content; };
    mkMerge = contents: { _type = "merge"; inherit contents; };
    mkOverride = priority: content: { _type = "override"; inherit priority content; };
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;

    types =
      let
        type = name: check: { inherit name check; take = value: value; merge = last; };
      in
      rec {
        bool = type "boolean" isBool;
        str = type "string" isString;
        package = type "package" isAttrs;
        ints.unsigned = type "unsigned integer" (value: isInt value && value >= 0);
        numbers.nonnegative = type "number of at least 0" (value: (isInt value || isFloat value) && value >= 0);
        nullOr = inner: inner // { check = value: value == null || inner.check value; take = value: if value == null then null else inner.take value; };
        listOf = inner: type "list" (value: isList value && all inner.check value) // { merge = concatLists; };
        attrsOf = inner: type "set" (value: isAttrs value && all inner.check (builtins.attrValues value)) // { merge = foldl' (a: b: a // b) { }; };
        coercedTo = from: f: to: to // {
          check = value: from.check value || to.check value;
          take = value: if from.check value then f value else value;
        };
        anything = type "anything" (_: true) // { merge = foldl' join { }; };
        join = a: b:
          if isAttrs a && isAttrs b && !(a ? outPath) then
            a // mapAttrs (name: value: if a ? ${name} then join a.${name} value else value) b
          else if isList a && isList b then a ++ b else b;
      };

    # Definitions of the option at `path` in `value`; a condition is looked at only where there is one.
    definitions =
      path: value:
      let
        kind = value._type or null;
        content = definitions path value.content;
      in
      if isAttrs value && kind == "if" then (if path != [ ] && content == [ ] then [ ] else if value.condition then content else [ ])
      else if isAttrs value && kind == "merge" then concatMap (definitions path) value.contents
      else if isAttrs value && kind == "override" && path == [ ] then [ { inherit (value) priority; value = plain value.content; } ]
      else if isAttrs value && kind == "override" then map (found: found // { inherit (value) priority; }) content
      else if path == [ ] then [ { priority = 100; value = plain value; } ]
      else if isAttrs value && value ? ${head path} then definitions (tail path) value.${head path}
      else [ ];

    # Without the marks, where they stand within a value.
    plain =
      value:
      if !isAttrs value || value ? outPath then value
      else mapAttrs (_: inner: head inner) (filterAttrs (_: inner: inner != [ ]) (mapAttrs (_: inner: map (found: found.value) (definitions [ ] inner)) value));

    evalModules =
      { modules, specialArgs ? { } }:
      let
        flat = concatMap (
          module:
          let
            set = if isFunction module then module (specialArgs // { inherit lib config; }) else module;
          in
          flat (set.imports or [ ]) ++ [ (if set ? options || set ? config then set else { config = removeAttrs set [ "imports" ]; }) ]
        );
        all' = flat modules;
        options = foldl' (a: b: types.join a b) { } (map (module: module.options or { }) all');
        option =
          path: option:
          let
            found = concatMap (module: definitions path (module.config or { })) all';
            first = foldl' (a: b: if b.priority < a then b.priority else a) 9999 found;
            values = map (one: one.value) (filter (one: one.priority == first) found);
            wrong = filter (value: !option.type.check value) values;
            name = concatStringsSep "." path;
          in
          if wrong != [ ] then throw "${name} must be a ${option.type.name}"
          else if values != [ ] then option.type.merge (map option.type.take values)
          else option.default or (throw "${name} is used, and has no value");
        walk = path: mapAttrs (name: value: if value._type or null == "option" then option (path ++ [ name ]) value else walk (path ++ [ name ]) value);
        config = walk [ ] options;
      in
      { inherit config options; };
  };
in
lib
