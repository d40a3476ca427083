"""Training of CSR encoders, on torch."""
