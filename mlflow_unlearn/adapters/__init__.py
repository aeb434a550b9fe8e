"""The only importers of DVC, MLflow's client, Great Expectations, transformers' loaders, DuckDB and SQLAlchemy: one module each."""
