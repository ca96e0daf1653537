"""guestServer: one per worker; discovers guest channels, heartbeats them, reports."""
