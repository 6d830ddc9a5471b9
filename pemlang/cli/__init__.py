"""The `pem` command: one file a subcommand."""
