"""Delivery: from finished spans to where the program's MLflow settings say, in memory and time that are bounded."""
