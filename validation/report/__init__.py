"""Reports of a validation: a table on the terminal, JSON, an HTML page with plots."""
