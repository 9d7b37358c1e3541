"""The wire contract between agents and coordinator: small JSON documents that keep fields they do not know."""
