"""From derived expressions to the intermediate representation."""
