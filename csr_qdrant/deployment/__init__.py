"""What csr-qdrant does to collections that others made: attach, detach, examine."""
