"""What is still known: one file a metric."""
