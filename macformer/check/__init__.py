"""Test variants of a user against the contract, and train each for a minute."""
