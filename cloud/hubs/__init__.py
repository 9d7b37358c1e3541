"""The cloud's end of the hubs: one adapter each."""
