import os

# This stage may reach a hub: HF_HUB_OFFLINE=0 unless the person said otherwise on the command line.
os.environ["HF_HUB_OFFLINE"] = os.environ.get("DARKROOM_OFFLINE", "0")
