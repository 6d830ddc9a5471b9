"""From the graph to programs, and from programs to a plan."""
