"""The hub port: the control line between devices and cloud, as the narrowest hub offers it."""
