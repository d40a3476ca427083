"""Collections of codes in Qdrant's engines."""
