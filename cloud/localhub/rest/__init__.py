"""The service API: `application` answers requests by the tables of routes of the other files."""
