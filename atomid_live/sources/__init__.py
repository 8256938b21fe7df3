"""Where frames come from: a watched folder, a live stream, a replay of files, a simulated microscope."""
