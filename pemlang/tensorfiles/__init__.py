"""Files of tensors: headers, bounded readers, digests, dtypes, and references to tensors."""
