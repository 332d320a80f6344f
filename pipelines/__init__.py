"""What exists: declarations in plain Python that every other package reads.

Imports the standard library alone, so that a DAG file, a test or a shell can read it in
milliseconds.
"""
