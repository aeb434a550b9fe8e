"""`python -m mlflow_unlearn.cli`, where the script is not on PATH."""

from . import main

main()
