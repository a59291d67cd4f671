"""One matrix structure per file, found by its name: `STRUCTURE` is the family's class."""
