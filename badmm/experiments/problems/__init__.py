"""From a configuration to what is solved or trained: data read, prepared, held out, assigned to clients."""
