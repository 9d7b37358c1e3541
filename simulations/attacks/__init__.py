"""What dishonest clients do: to their data before training, or to their update after it."""
