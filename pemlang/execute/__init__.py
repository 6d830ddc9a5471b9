"""Running a plan: on the threads of the processors, and on a GPU."""
