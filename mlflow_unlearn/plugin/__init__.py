"""One module per MLflow entry point: cheap to import, cannot raise at import."""
