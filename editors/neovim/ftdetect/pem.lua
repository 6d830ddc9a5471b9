-- .pem is also the extension of certificates, which are left as they are.
vim.filetype.add({
  extension = {
    pem = function(_, buffer)
      local first = vim.api.nvim_buf_get_lines(buffer, 0, 1, false)[1] or ""
      if not first:find("^%s*%-%-%-%-%-BEGIN") then
        return "pem"
      end
    end,
  },
})
