"""How a night runs: one thin file a stage, a function of a `Run` that reads, calls and writes."""
