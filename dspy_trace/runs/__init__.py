"""Evaluations and optimizers as MLflow runs.

What happens in them becomes *records*: plain JSON data, queued like spans and kept in the spool. The worker process
writes them through MLflow's public client; the program waits for nothing and imports no mlflow.
"""
