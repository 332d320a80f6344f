"""What models see: declared features as Feast's definitions, and the join as of a moment."""
