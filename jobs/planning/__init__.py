"""What a run has to do: which days of which tables are missing or stale, in which passes."""
