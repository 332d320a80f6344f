"""What the pages in the Airflow UI show: plain data, read from the lake without Spark."""
