"""What people see: pages inside the Airflow UI."""
