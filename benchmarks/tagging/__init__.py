"""LANER and its baselines on a source and many targets: what is run, source stages that are kept, tables and figures."""
