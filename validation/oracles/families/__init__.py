"""One file per family, each with an ORACLE: closed forms stated by hand, test points, and the tolerances they meet."""
