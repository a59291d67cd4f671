"""From the intermediate representation to source text; one folder per backend."""
