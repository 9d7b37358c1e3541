"""What ours is measured against: each a program of its own, as its users would write it."""
