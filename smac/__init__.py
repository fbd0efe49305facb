"""The discrete side: recurrent learners for tasks with masks and deaths. Nothing outside of this folder imports it."""
