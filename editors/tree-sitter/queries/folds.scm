[
  (def_stmt)
  (test_stmt)
  (list)
  (for)
  (per)
  (renames)
  (arguments)
  (import_names)
] @fold
