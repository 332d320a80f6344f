"""Pages about nights, data, predictions and models, inside the Airflow UI."""
