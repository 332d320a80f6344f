"""What `make setup` does, with the standard library alone: it runs before anything is installed, on any Python from 3.8."""
