"""How a handler runs: callbacks, coroutines, blocking. Knows no processes and no configuration."""
