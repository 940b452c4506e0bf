"""One file a measure; each has `measure(names, quick) -> Result`."""
