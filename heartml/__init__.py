"""HeartML: an audited pipeline from stethoscope recordings to a registered heart-sound model. Not a medical device."""

__version__ = "0.1.0"
