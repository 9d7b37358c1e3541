"""The device's end of the hubs: one adapter each."""
