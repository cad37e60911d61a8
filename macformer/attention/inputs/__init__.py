"""What is done to queries and keys before an attention sees them."""
