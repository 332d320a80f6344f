"""From landed files to typed records: what a drop holds, and its rows with provenance."""
