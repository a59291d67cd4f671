"""One file per optimizer, written plainly from its papers."""
