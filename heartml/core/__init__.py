"""What every stage needs: parameters, paths, schemas of tables, folds, tasks. These modules import only each other."""
