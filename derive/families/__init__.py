"""One small file a family; found by name, nothing to register."""
