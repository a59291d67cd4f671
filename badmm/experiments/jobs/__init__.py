"""Jobs: runs that have one folder, a convex problem or one method of a network run with one seed."""
