"""One module per MLflow entry point: cheap to import, cannot raise at import. Beside them, what a signature of a run's lineage covers."""

from ..adapters.lineage_record import lineage_record, write_lineage_record

__all__ = ["lineage_record", "write_lineage_record"]
