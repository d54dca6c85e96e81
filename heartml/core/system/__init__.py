"""Files, processes, parallel work, untrusted input and errors: nothing here knows about heart sounds."""
