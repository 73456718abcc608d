"""Observe: events of serving to histograms, exporters, logs and a live view. Serving never imports this room."""
