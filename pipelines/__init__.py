"""The user's side of our examples: data preparation and training scripts as a user would write them. Not in the wheel."""
