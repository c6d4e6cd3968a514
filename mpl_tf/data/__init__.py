"""From raw pictures to the one batch dict that every method reads."""
