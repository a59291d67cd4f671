"""The part of a kernel call that all devices share: checks of arguments, arrays and outputs."""
