"""Adapters for libraries that search or move vectors; each imports its library only when used."""
