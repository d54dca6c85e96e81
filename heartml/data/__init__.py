"""From a publisher's folder to validated recordings and folds: data sets, simulation, ingest, validation, splitting."""
