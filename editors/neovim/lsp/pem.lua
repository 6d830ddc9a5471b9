-- Recipes of pemlang: vim.lsp.enable("pem") in init.lua, with ftdetect/pem.lua beside it.
return {
  cmd = { "pem", "lsp" },
  filetypes = { "pem" },
  root_markers = { "pem.lock", ".git" },
}
