"""gRPC: HTTP/2 connections of our own over libnghttp2, the calls on them, and the methods that they call."""
