"""HTTP/1.1 for the server: `connection` speaks it, `hub` keeps all connections, `routes` reads paths, `frontend` answers."""
