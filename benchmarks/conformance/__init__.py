"""The same questions to hasten and to a real tritonserver, and what is meant where the answers differ."""
