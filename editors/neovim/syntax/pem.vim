" Recipes of pemlang. Written by editors/make.py.
if exists("b:current_syntax")
  finish
endif
syntax iskeyword @,48-57,_,192-255
syntax keyword pemKeyword and as assert base def else export for if import in language layers let like not on or param per print save test then to with zip
syntax keyword pemConstant false true
syntax keyword pemType bool dense dora expert_lora ia3 lora number schedule string
syntax match pemType "\<\(adapter\|model\)\>"
syntax match pemKeyword "^\s*\zs\(adapter\|model\)\>"
syntax match pemFunction "\<\(arcee_fusion\|breadcrumbs\|breadcrumbs_ties\|compress\|core_merge\|cosine\|dare\|dare_linear\|dare_ties\|della\|della_linear\|della_ties\|distance\|energy\|ext_sub\|extract_subtract\|fails\|fisher\|init_overlap\|interference\|iso_c\|iso_cts\|join\|karcher\|karcher_mean\|knots\|len\|lerp\|linear\|lora_lego\|magnitude_prune\|mean\|model_stock\|multislerp\|nearswap\|norm\|nuslerp\|pad\|peft_linear\|ram\|ramp\|ramplus_tl\|rank\|regmean\|rescale\|same\|sample\|sce\|slerp\|stack\|steps\|sum\|svc\|task_arithmetic\|ties\|tsv\|tsv_m\|wudi\)\ze\s*("
syntax match pemNumber "\<[0-9][0-9_]*\(\.[0-9][0-9_]*\)\?\([eE][+-]\?[0-9]\+\)\?\>"
syntax match pemOperator "[-+*/⊕⊖⊗<>=]"
syntax region pemString start=+"+ skip=+\\.+ end=+"+ oneline
syntax match pemComment "#.*$"
syntax match pemDocumentation "##.*$"
highlight default link pemKeyword Keyword
highlight default link pemConstant Boolean
highlight default link pemType Type
highlight default link pemFunction Function
highlight default link pemNumber Number
highlight default link pemOperator Operator
highlight default link pemString String
highlight default link pemComment Comment
highlight default link pemDocumentation SpecialComment
let b:current_syntax = "pem"
