"""The format on disk: rows as arrays beside a manifest, whole or not at all."""
