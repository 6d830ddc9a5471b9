[
  (test_stmt)
  (list)
  (for)
  (per)
  (renames)
  (call)
  (group)
  (def_params)
  (import_names)
] @indent

[")" "]" "}"] @outdent
