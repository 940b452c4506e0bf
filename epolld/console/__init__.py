"""What `epolldctl` is made of: the conversation with the daemon, tables, the live screen."""
