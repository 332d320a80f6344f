"""What the `nightshift` command does, one module a command."""
