"""Built-in services, one small file each, written to be read as examples; and the registry.

They use nothing that a protocol of yours could not use.
"""
