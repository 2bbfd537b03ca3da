"""Where documents and their vectors live. One file a store; `testing.check_store` is the contract."""
