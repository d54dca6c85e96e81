"""Which units are held out, and which fold every other unit is in. A group is never in two parts."""
