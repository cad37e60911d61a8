"""The format on disk: rows as arrays beside a manifest, written completely or not at all."""
