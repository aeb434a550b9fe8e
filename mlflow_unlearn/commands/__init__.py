"""What each command does, as functions from arguments to JSON-ready documents, and how the answers are shown."""
