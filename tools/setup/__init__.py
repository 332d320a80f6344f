"""What `make setup` does, with the standard library alone.

It runs before anything is installed, on any Python from 3.8.
"""
