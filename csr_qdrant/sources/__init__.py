"""Rows from files, streamed in blocks."""
