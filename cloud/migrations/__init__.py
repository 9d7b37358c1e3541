"""Migrations: any older database comes to the present at the coordinator's start."""
