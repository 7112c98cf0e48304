"""An HTTP server for rewards: bodies in, rows scored together, bodies out."""
