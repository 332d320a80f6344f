"""The model: TensorFlow, Keras, Horovod and MLflow live here and in `jobs/scoring.py`, and nowhere else."""

import os

# TensorFlow's C++ side reads it once, on import, and is talkative without.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
