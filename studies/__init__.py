"""What Merge Advisor chooses: search spaces and Optuna studies over plain parameters."""
