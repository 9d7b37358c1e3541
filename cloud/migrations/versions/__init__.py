"""The steps from one state of the database to the next."""
