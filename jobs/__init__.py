"""How a night runs: one thin file a stage, each a function of a `Run` that reads, calls and writes."""
