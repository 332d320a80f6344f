"""What models see: Feast definitions, one module a pipeline, and their point-in-time join."""
