"""`python pipelines/champion.py NAME VERSION`: what a team's deployment does today, without a gate: point @champion at a version."""

from __future__ import annotations

import sys

from mlflow import MlflowClient

from mlflow_unlearn.config import settings


def main() -> None:
    """Set the alias."""
    name, version = sys.argv[1:]
    MlflowClient(settings().tracking_uri).set_registered_model_alias(name, "champion", version)
    print(f"models:/{name}@champion is now version {version}")


if __name__ == "__main__":
    main()
