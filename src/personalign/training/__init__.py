"""Training: one loop, several methods. Settings are importable without torch (personalign.training.settings)."""
