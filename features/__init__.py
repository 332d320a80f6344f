"""What models see: Feast definitions, one module a pipeline, and the point-in-time join behind them."""
