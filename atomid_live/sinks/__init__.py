"""Where results go: the session folder, pictures, screens and subscribers."""
