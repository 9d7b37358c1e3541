"""HTTP shapes that the coordinator serves and clients read: plain pydantic, no tables, no framework."""
