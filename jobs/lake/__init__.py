"""Every read, write and publication of a table."""
