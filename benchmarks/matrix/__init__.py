"""Every way to shrink a collection's vectors, on one task, in one engine, in one run."""
