"""MLflow: runs, registered versions, champions, stored files, consent, signatures. Nothing else talks to it."""
