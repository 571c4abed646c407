"""What other systems do on the same work. These scripts run in an environment of their own and import nothing of heed."""
