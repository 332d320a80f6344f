"""The model: TensorFlow, Keras, Horovod and MLflow live here and in `jobs/scoring.py`, and nowhere else."""
