[
  (source_file)
  (test_stmt)
  (def_stmt)
  (for)
] @local.scope

(_ . ["base" "model" "adapter" "param" "let" "def"] . (identifier) @local.definition)
(def_param . (identifier) @local.definition)
(for "for" (identifier) @local.definition)
(import_alias (identifier) @local.definition)
(import_names (identifier) @local.definition)

(name . (identifier) @local.reference)
