"""When it runs: one DAG file a pipeline, read by Airflow.

Imports Airflow and `pipelines`, and calls the `nightshift` command.
"""
