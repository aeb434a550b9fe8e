"""The gate inside MLflow's server: its registry store, what it keeps and decides, and its artifact repositories."""
