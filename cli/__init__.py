"""The `csr` command."""
