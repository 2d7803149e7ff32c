"""The flavor: programs as MLflow models."""
