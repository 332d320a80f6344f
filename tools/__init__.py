"""What builds and checks this repository; nothing that runs of a night."""

PACKAGES = ("pipelines", "jobs", "expectations", "features", "dags", "plugins", "nightshift")
"""The packages of the code: what is installed, measured and drawn."""
