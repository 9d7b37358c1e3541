"""Programs of the simulation bench: ours and each peer run the same workload, each in a process of its own."""
