; Written by editors/make.py.
["adapter" "as" "assert" "base" "def" "else" "export" "for" "if" "import" "in" "language" "layers" "let" "like" "model" "on" "param" "per" "print" "save" "test" "then" "to" "with"] @keyword
["and" "not" "or"] @keyword.operator
["(" ")" "[" "]" "{" "}"] @punctuation.bracket
["," "." ":"] @punctuation.delimiter
["!=" "*" "+" "-" "->" ".*" ".+" ".-" ".." "/" "<" "<=" "=" "==" ">" ">=" "⊕" "⊖" "⊗"] @operator

[(true) (false)] @constant.builtin.boolean
(number) @constant.numeric
(string) @string
(escape) @constant.character.escape
(interpolation) @string.special
(comment) @comment.line
(documentation) @comment.line.documentation

(type_name . (identifier) @type.builtin)
(def_stmt . "def" . (identifier) @function)
(def_param . (identifier) @variable.parameter)
(named_arg . (identifier) @variable.parameter)
(declared_option . (identifier) @variable.parameter)
(module_path (identifier) @namespace)
(import_alias (identifier) @namespace)
(name (identifier) @namespace "." (identifier))
(call (name "." (identifier) @function))
((call (name . (identifier) @function .)) (#not-any-of? @function "arcee_fusion" "breadcrumbs" "breadcrumbs_ties" "compress" "core_merge" "cosine" "dare" "dare_linear" "dare_ties" "della" "della_linear" "della_ties" "distance" "energy" "ext_sub" "extract_subtract" "fails" "fisher" "init_overlap" "interference" "iso_c" "iso_cts" "join" "karcher" "karcher_mean" "knots" "len" "lerp" "linear" "lora_lego" "magnitude_prune" "mean" "model_stock" "multislerp" "nearswap" "norm" "nuslerp" "pad" "peft_linear" "ram" "ramp" "ramplus_tl" "rank" "regmean" "rescale" "same" "sample" "sce" "slerp" "stack" "steps" "sum" "svc" "task_arithmetic" "ties" "tsv" "tsv_m" "wudi"))
((call (name . (identifier) @function.builtin .)) (#any-of? @function.builtin "arcee_fusion" "breadcrumbs" "breadcrumbs_ties" "compress" "core_merge" "cosine" "dare" "dare_linear" "dare_ties" "della" "della_linear" "della_ties" "distance" "energy" "ext_sub" "extract_subtract" "fails" "fisher" "init_overlap" "interference" "iso_c" "iso_cts" "join" "karcher" "karcher_mean" "knots" "len" "lerp" "linear" "lora_lego" "magnitude_prune" "mean" "model_stock" "multislerp" "nearswap" "norm" "nuslerp" "pad" "peft_linear" "ram" "ramp" "ramplus_tl" "rank" "regmean" "rescale" "same" "sample" "sce" "slerp" "stack" "steps" "sum" "svc" "task_arithmetic" "ties" "tsv" "tsv_m" "wudi"))
