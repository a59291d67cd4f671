"""The apps of a study."""
