"""Examine a user's files, write a task for them, and warn of problems with the data."""
