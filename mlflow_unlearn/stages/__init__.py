"""One thin module per DVC stage, run as `mlflow-unlearn stage NAME`."""
