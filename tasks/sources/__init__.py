"""Where raw data come from: a folder or an archive that the user has, or the hub."""
