"""Problems and networks of a configuration: data are read, prepared, held out and assigned to clients."""
