"""The HTTP service: one index and its model for many clients. Needs the extra `serve`."""
