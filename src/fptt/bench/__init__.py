"""Times training beside the same training in other frameworks."""
