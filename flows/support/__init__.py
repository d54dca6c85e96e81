"""What the flows share: retries, console output, local services, clean-up after killed runs."""
