"""What the recurrent learners share: stacked GRU networks, RMSprop, the replay of episodes, acting and testing."""
