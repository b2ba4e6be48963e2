"""ATen operations as plain ones."""
