vim.bo.commentstring = "# %s"
-- Where the parser of editors/tree-sitter is built, it colours and folds; else syntax/pem.vim colours.
if vim.treesitter.language.add("pem") then
  vim.treesitter.start()
  vim.wo[0][0].foldmethod = "expr"
  vim.wo[0][0].foldexpr = "v:lua.vim.treesitter.foldexpr()"
  vim.wo[0][0].foldlevel = 99
end
