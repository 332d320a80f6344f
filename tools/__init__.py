"""What builds and checks this repository; nothing that runs of a night."""
