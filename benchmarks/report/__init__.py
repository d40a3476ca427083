"""Reports of `csr bench`: read from one JSON, shown as a table, Markdown, a page and plots."""
