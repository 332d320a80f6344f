"""The model: TensorFlow, Keras, Horovod and MLflow live here, and nowhere else."""

import os

# Each is read once, on import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
