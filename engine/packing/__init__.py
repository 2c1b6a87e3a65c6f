"""Several runs trained together on one base, each as it would be alone, and how many at a time pay."""
