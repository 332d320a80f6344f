"""The model: TensorFlow, Keras, Horovod and MLflow live here, and nowhere else."""

import logging
import os

# Each is read once, on import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING") == "WARNING":
    # By it MLflow also writes, with a stack, each error of its database that it raises: we tell of
    # it, once and in plain words. Whoever sets another level wants to see what MLflow does.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
