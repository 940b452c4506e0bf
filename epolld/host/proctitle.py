"""What `ps` and `top` show for each process. Knows no state of its own: callers pass it in."""


def master_title(title: str) -> str:
    """The master's line in `ps`: `epolld: master`."""
    return f"{title}: master"


def worker_title(title: str, slot: int, generation: int, state: str = "") -> str:
    """A worker's line in `ps`: `epolld: worker 2 gen 3 (draining)`; no brackets without a state."""
    suffix = f" ({state})" if state else ""
    return f"{title}: worker {slot} gen {generation}{suffix}"


def exporter_title(title: str) -> str:
    """The exporter's line in `ps`: `epolld: exporter`."""
    return f"{title}: exporter"


def set_title(text: str) -> None:
    """Show `text` as this process's command line."""
    # Imported here: it remembers argv's memory at import, and --check or --schema need none of it.
    import setproctitle

    setproctitle.setproctitle(text)
