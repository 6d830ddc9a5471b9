"""Adapters and models on disk: headers, configs, key names."""
