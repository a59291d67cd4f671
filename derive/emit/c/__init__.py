"""The C header."""
