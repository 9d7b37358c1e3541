"""What a federated algorithm adds to plain local training on a client, in arithmetic."""
