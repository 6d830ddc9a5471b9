-- Drives Neovim with the files of editors/neovim, and prints what came of it.
local told = { filetype = vim.bo.filetype, commentstring = vim.bo.commentstring }
local function reached(what) return vim.wait(60000, what, 20) end

reached(function() return #vim.lsp.get_clients({ bufnr = 0 }) > 0 end)
reached(function() return #vim.diagnostic.get(0) > 0 end)
told.clients = vim.tbl_map(function(x) return x.name end, vim.lsp.get_clients({ bufnr = 0 }))
told.root = vim.lsp.get_clients({ bufnr = 0 })[1].root_dir
told.diagnostics = vim.tbl_map(function(x) return { x.code, x.lnum } end, vim.diagnostic.get(0))

local params = { textDocument = vim.lsp.util.make_text_document_params(), position = { line = 1, character = 8 } }
local answers = vim.lsp.buf_request_sync(0, "textDocument/hover", params, 60000) or {}
for _, answer in pairs(answers) do told.hover = answer.result.contents.value end

told.coloured = {}
for _, place in ipairs({ { 1, 0 }, { 1, 8 }, { 1, 18 }, { 0, 12 } }) do
  local captures = vim.treesitter.get_captures_at_pos(0, place[1], place[2])
  table.insert(told.coloured, captures[#captures] and captures[#captures].capture or "")
end
told.folds = vim.wo.foldexpr

vim.cmd.edit("plain.pem")
told.certificate = vim.bo.filetype
told.attached = #vim.lsp.get_clients({ bufnr = 0 })
io.stdout:write(vim.json.encode(told) .. "\n")
vim.cmd("qall!")
