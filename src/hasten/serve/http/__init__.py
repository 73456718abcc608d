"""HTTP/1.1 for the server: `reader` and `connection` speak it, `routes` reads paths, `frontend` answers."""
