"""Sources of raw data: a local folder or archive, or the Hugging Face hub."""
