"""User-level central differential privacy: what a model reveals about any one device is bounded, noise and all."""
