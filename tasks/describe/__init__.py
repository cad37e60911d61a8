"""Look at a user's files, write a task from them, and say what a careful colleague would."""
