"""Trained models: open a file, check it, read its signature and its anatomy."""
