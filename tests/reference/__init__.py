"""Independent implementations that tests compare the pipelines with."""
