"""The engine: loop, timers, transports, acceptors. Knows no configuration, no processes."""
