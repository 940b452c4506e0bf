"""A worker's life: boot, serve, drain, exit. Never imports the master."""
