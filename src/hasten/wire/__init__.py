"""Codecs: bytes to requests and responses to bytes, without sockets. One file for each protocol."""
