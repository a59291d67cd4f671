"""What a validation shows: the terminal's table, JSON, a page with plots."""
