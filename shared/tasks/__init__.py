"""Tasks: one learning problem each, defined once. The reference tasks are physio and digits."""
