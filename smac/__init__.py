"""The discrete side: recurrent learners for tasks with masks and deaths. Nothing outside of this folder imports it."""

from pkgutil import extend_path

# StarCraft's own package has this name too: smac.env of an installed one stays within reach, as --env smac.env....:...
__path__ = extend_path(__path__, __name__)
