"""What needs a Kubernetes: `make chart-test` runs it where KUBECONFIG names one without nodes."""
