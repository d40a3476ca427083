"""Text embedders, chosen by URI."""
