"""What is to be done: work items, leases, retries."""
