"""The hand-written part of a kernel call that is the same on every device: arguments, arrays, outputs."""
