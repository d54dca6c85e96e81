"""Everything that talks to MLflow: runs, registered versions, champions, stored files, consent, signatures."""
