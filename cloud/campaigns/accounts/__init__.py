"""What devices' privacy was spent on, over all campaigns."""
