"""The reading worklist a person looks at."""
