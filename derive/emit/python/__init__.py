"""What the Python faces of all devices share."""
