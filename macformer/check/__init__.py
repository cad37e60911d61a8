"""Hold variants to the contract, and train each for a minute."""
