"""What the flows share: retries, one-line errors, console output, local services, clean-up after killed runs."""
