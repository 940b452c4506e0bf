"""The master: binds, forks, watches, reloads. Never imports the worker, never runs user code."""
