"""The process that answers scrapes: reads the scoreboard and /proc, touches no worker."""
