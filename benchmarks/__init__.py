"""Tasks, systems and measurements."""
