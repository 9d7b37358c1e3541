"""How a round's updates become the next model: pure functions over tensors, for coordinator and simulator alike."""
