"""Puts this folder on the import path, so that all tests can `import needs`; nothing else."""
