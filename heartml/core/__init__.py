"""What every stage stands on: errors, files, paths, parameters, tables, tasks. Leaves: they import only each other."""
