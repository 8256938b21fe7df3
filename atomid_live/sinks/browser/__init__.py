"""The session in a web browser on the same PC: a small server on the loopback address, one page, nothing from outside."""
