"""After the stages: register a version, let the gate judge it, promote or refuse it. Compare two versions."""
